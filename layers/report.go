package layers

import (
	"fmt"
	"strings"
)

// Total is the bytes of an instance.
func (p *Plan) Total() int64 { return p.Activations + p.Workspace }

// PerImage is the bytes of an instance for each image of its batch.
func (p *Plan) PerImage() int64 { return p.Total() / int64(p.Options.Batch) }

// String is a table: parameters, activations, workspace, total, per image.
func (p *Plan) String() string {
	var b strings.Builder
	row := func(name string, bytes int64, note string) {
		line := fmt.Sprintf("%-12s%10.2f MiB  %s", name, float64(bytes)/(1<<20), note)
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	parameters := p.Graph.Parameters * p.Options.Precision.AccSize()
	purpose := "forward"
	if p.Options.Train {
		purpose = "forward and backward"
	}
	row("parameters", parameters, fmt.Sprintf("%d in %d tensors, %v", p.Graph.Parameters, len(p.Graph.Params), p.Options.Precision))
	row("activations", p.Activations, fmt.Sprintf("batch %d, %s", p.Options.Batch, purpose))
	row("workspace", p.Workspace, "")
	row("total", parameters+p.Total(), "")
	row("per image", p.PerImage(), "activations and workspace")
	return b.String()
}
