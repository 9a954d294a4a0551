package kernels

// product is what a choice of tiles may depend on: rows×columns of the matrix product of one image, or of the weights, and the channel counts that
// a kernel moves. It says nothing of the batch, the device or its multiprocessors, so that each value is computed the same way however the
// work is divided.
type product struct {
	rows, columns int
	channels      [2]int
}

func (c Conv) forward() product { return product{c.OH * c.OW, c.Cout, [2]int{c.Cin, c.Cout}} }

func (c Conv) backwardData() product { return product{c.H * c.W, c.Cin, [2]int{c.Cin, c.Cout}} }

func (c Conv) backwardWeight() product {
	return product{c.KH * c.KW * c.Cin, c.Cout, [2]int{c.Cin, c.Cout}}
}

// A tileRule chooses a tile for products of at most so many rows and columns; 0 is any number. remainder is how many columns the last of
// several tiles of 128 would have at most.
type tileRule struct {
	rows, columns, remainder int
	aligned                  bool
	tile                     func(k convKernels) declaration
}

func large(k convKernels) declaration     { return k.large }
func largeAny(k convKernels) declaration  { return k.largeAny }
func medium(k convKernels) declaration    { return k.medium }
func small(k convKernels) declaration     { return k.small }
func narrow(k convKernels) declaration    { return k.narrow }
func narrowAny(k convKernels) declaration { return k.narrowAny }

// The rules, of which the first that fits is taken. Without tensor cores a large tile has 64 columns, a narrow one 16, and 24 columns would leave
// a large one too idle. With them a large tile has 128×128 values, a medium one 128×64, a narrow one 128×32 or, unaligned, 128×16; a small one
// has 64×64, of which four warps each sum a quarter of k, for images that have few tiles: at a batch of 128, 8×8 pixels and 256 channels
// have 128 large tiles, too few for the two that a multiprocessor holds.
var (
	plainRules = []tileRule{
		{columns: 24, aligned: true, tile: narrow},
		{columns: 24, tile: narrowAny},
		{aligned: true, tile: large},
		{tile: largeAny},
	}
	tensorRules = []tileRule{
		{columns: 32, aligned: true, tile: narrow},
		{rows: 64, aligned: true, tile: small},
		{columns: 64, aligned: true, tile: medium},
		{remainder: 64, aligned: true, tile: medium},
		{aligned: true, tile: large},
		{columns: 16, tile: narrowAny},
		{tile: largeAny},
	}
)

func (r tileRule) fits(p product, aligned bool) bool {
	return (r.rows == 0 || p.rows <= r.rows) && (r.columns == 0 || p.columns <= r.columns) &&
		(r.remainder == 0 || (p.columns-1)%128 < r.remainder) && (!r.aligned || aligned)
}

// tensor says whether the kernels are made for tensor cores.
func (q *Queue) tensor() bool {
	return q.err == nil && q.library.has(convForwardKernels.small)
}

// variant picks the entry for a product.
func (q *Queue) variant(k convKernels, p product) declaration {
	wide := int(q.geometry(k.large)[3])
	aligned := p.channels[0]%wide == 0 && p.channels[1]%wide == 0
	rules := plainRules
	if q.tensor() {
		rules = tensorRules
	}
	for _, r := range rules {
		if r.fits(p, aligned) {
			return r.tile(k)
		}
	}
	panic("kernels: no tile for a product") // the last rule fits everything
}
