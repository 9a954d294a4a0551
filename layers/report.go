package layers

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Total is the bytes of an instance.
func (p *Plan) Total() int64 { return p.Activations + p.Workspace }

// PerImage is the bytes of an instance for each image of its batch.
func (p *Plan) PerImage() int64 { return p.Total() / int64(p.Options.Batch) }

// String is a table: parameters, activations, workspace, total, per image.
func (p *Plan) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	parameters := p.Graph.Parameters * p.Options.Real.Size()
	purpose := "forward"
	if p.Options.Train {
		purpose = "forward and backward"
	}
	fmt.Fprintf(w, "parameters\t%s\t %d in %d tensors, %v\n", mebibytes(parameters), p.Graph.Parameters, len(p.Graph.Params), p.Options.Real)
	fmt.Fprintf(w, "activations\t%s\t batch %d, %s\n", mebibytes(p.Activations), p.Options.Batch, purpose)
	fmt.Fprintf(w, "workspace\t%s\t\n", mebibytes(p.Workspace))
	fmt.Fprintf(w, "total\t%s\t\n", mebibytes(parameters+p.Total()))
	fmt.Fprintf(w, "per image\t%s\t activations and workspace\n", mebibytes(p.PerImage()))
	w.Flush() // into memory
	return b.String()
}

func mebibytes(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
