package layers

// Param is one tensor of parameters.
type Param struct {
	// Name and Shape are public, those of diffusers: convolutions [out][in][kernel height][kernel width], matrices [out][in].
	Name  string
	Shape []int
	// Offset is where the tensor begins in an arena, in elements: a multiple of 16, or, of those whose gradients are sums over images, of the
	// largest power of two up to 16 that divides Elements.
	Offset   int64
	Elements int64
	// Layout says how the arena has the tensor, Init what it is before training.
	Layout Layout
	Init   Init

	sum bool // the gradient is a sum over images of a row of each, see Graph.rows
}

// Layout is how a tensor lies in an arena.
type Layout int

// The layouts.
const (
	AsPublic    Layout = iota // as its public shape has it: vectors, and tables of embeddings
	Convolution               // public [O][I][KH][KW], in the arena [KH][KW][I][O]
	Matrix                    // public [O][I], in the arena [I][O]
)

// tensorAlign is what offsets in an arena are multiples of, in elements, and the rows of sums.
const tensorAlign = 16

// SpareElements is how many elements at the end of an arena belong to no tensor.
const SpareElements = 16

// param adds a parameter and returns its number.
func (b *builder) param(name string, layout Layout, init Init, shape ...int) int {
	n := int64(1)
	for _, d := range shape {
		n *= int64(d)
	}
	b.g.Params = append(b.g.Params, Param{Name: name, Shape: shape, Elements: n, Layout: layout, Init: init})
	return len(b.g.Params) - 1
}

// rows is one row for each image of what the gradients of some parameters are sums of: those of convolutions' biases, and of γ and β of group
// norms. In an arena these parameters lie as in a row, so that one launch sums all of them.
type rows struct {
	first  int64 // where the parameters begin in an arena
	width  int64 // how many elements they have
	stride int64 // from one row to the next: width and a gap
}

// place gives every parameter its offset. Behind the others come those that are columns of a row, without gaps: first the ones whose elements
// are a multiple of 16, then of 8, 4 and 2, then the rest, so that each begins at a multiple of what its elements are one of. γ and β of a group
// norm stay neighbours.
func (g *Graph) place() {
	end := int64(0)
	for i := range g.Params {
		p := &g.Params[i]
		g.Parameters += p.Elements
		if !p.sum {
			p.Offset = end
			end = roundUp(end+p.Elements, tensorAlign)
		}
	}
	g.rows.first = end
	for align := int64(tensorAlign); align > 0; align /= 2 {
		for i := range g.Params {
			if p := &g.Params[i]; p.sum && min(p.Elements&-p.Elements, tensorAlign) == align {
				p.Offset = end
				end += p.Elements
			}
		}
	}
	g.rows.width = end - g.rows.first
	end = roundUp(end, tensorAlign)
	g.rows.stride = end - g.rows.first
	g.ArenaElements = end + SpareElements
}

func roundUp(n, multiple int64) int64 { return (n + multiple - 1) / multiple * multiple }

// matrices is the tensor in the arena as `count` matrices of rows×columns; its public form is one matrix [columns][rows·count], columns
// of a row being [rows][count].
func (p *Param) matrices() (count, rows, columns int) {
	switch p.Layout {
	case Convolution:
		return p.Shape[2] * p.Shape[3], p.Shape[1], p.Shape[0]
	case Matrix:
		return 1, p.Shape[1], p.Shape[0]
	}
	return 1, 1, int(p.Elements)
}

// each calls f for every element with its index in the public tensor and in the arena.
func (p *Param) each(f func(public, arena int64)) {
	count, rows, columns := p.matrices()
	at := p.Offset
	for m := range count {
		for r := range rows {
			for c := range columns {
				f((int64(c)*int64(rows)+int64(r))*int64(count)+int64(m), at)
				at++
			}
		}
	}
}

// ToPublic returns the tensor from an arena in its public shape.
func (p *Param) ToPublic(arena []float64) []float64 {
	v := make([]float64, p.Elements)
	p.each(func(public, at int64) { v[public] = arena[at] })
	return v
}

// FromPublic puts the tensor, given in its public shape, into an arena.
func (p *Param) FromPublic(arena, values []float64) {
	p.each(func(public, at int64) { arena[at] = values[public] })
}
