package kernels

// product is what a choice of tiles may depend on: rows×columns of the matrix product of one image, or of the weights' gradient, the channels that
// are summed over (Cin for the weights' gradient), the taps, and the large tiles that a shard has of a weights' gradient, 0 for others. It says nothing of the batch, the device or its multiprocessors, so that each
// value is computed the same way however the work is divided.
type product struct{ rows, columns, depth, taps, tiles int }

func (c Conv) forward() product {
	return product{rows: c.OH * c.OW, columns: c.Cout, depth: c.Cin, taps: c.KH * c.KW}
}

func (c Conv) backwardData() product {
	return product{rows: c.H * c.W, columns: c.Cin, depth: c.Cout, taps: c.KH * c.KW}
}

func (c Conv) backwardWeight() product {
	p := product{rows: c.KH * c.KW * c.Cin, columns: c.Cout, depth: c.Cin, taps: c.KH * c.KW}
	p.tiles = int(blocks(int64(p.rows), 128) * blocks(int64(p.columns), 128))
	return p
}

// A tileRule chooses a tile for products of at most so many rows and columns, and large tiles of a weights' gradient, 0 for any number, of which the
// last tile of 128 columns would have at most `remainder`, 0 for any.
type tileRule struct {
	rows, columns, remainder, tiles int
	tile                            func(k convKernels) declaration
}

func large(k convKernels) declaration     { return k.large }
func largeAny(k convKernels) declaration  { return k.largeAny }
func medium(k convKernels) declaration    { return k.medium }
func small(k convKernels) declaration     { return k.small }
func narrow(k convKernels) declaration    { return k.narrow }
func narrowAny(k convKernels) declaration { return k.narrowAny }

// The rules, of which the first that fits is taken. Without tensor cores a large tile has 64 columns, a narrow one 16, and 24 columns would leave
// a large one too idle. With them a large tile has 128×128 values, a medium one 128×64, a narrow one 128×32, those for any shape 128×64 and
// 128×16; a small one has 64×64, of which four warps each sum a quarter of k, for images that have few tiles: at a batch of 128, 8×8 pixels and
// 256 channels have 128 large tiles, too few for the two that a multiprocessor holds. So do the weights of a 1×1 convolution of 256×256: four
// tiles for each of 8 shards.
var (
	plainRules = []tileRule{
		{columns: 24, tile: narrow},
		{columns: 24, tile: narrowAny},
		{tile: large},
		{tile: largeAny},
	}
	tensorRules = []tileRule{
		{columns: 32, tile: narrow},
		{columns: 16, tile: narrowAny},
		{rows: 64, tile: small},
		{tiles: 6, tile: small},
		{columns: 64, tile: medium},
		{remainder: 64, tile: medium},
		{tile: large},
		{tile: largeAny},
	}
)

func (r tileRule) fits(p product) bool {
	return (r.tiles == 0 || p.tiles > 0 && p.tiles <= r.tiles) && (r.rows == 0 || p.rows <= r.rows) && (r.columns == 0 || p.columns <= r.columns) &&
		(r.remainder == 0 || (p.columns-1)%128 < r.remainder)
}

// tensor says whether the kernels are made for tensor cores.
func (q *Queue) tensor() bool {
	return q.err == nil && q.library.has(convForwardKernels.small)
}

// variant picks the entry for a product: the first rule's whose needs it meets.
func (q *Queue) variant(k convKernels, p product) declaration {
	rules := plainRules
	if q.tensor() {
		rules = tensorRules
	}
	for _, r := range rules {
		tile := r.tile(k)
		if needs := q.geometry(tile)[3:]; r.fits(p) && p.columns%int(needs[0]) == 0 && p.depth%int(needs[1]) == 0 && p.taps <= int(needs[2]) {
			return tile
		}
	}
	return k.largeAny // the last rule's has no needs, but after an error no geometry is known and nothing is launched
}
