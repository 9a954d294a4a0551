package selftest

import (
	"math/rand/v2"

	"ddgpu/kernels"
)

// enoughCases is how many shapes each operation is tested on at least; those that are chosen by hand, and these.
const enoughCases = 40

// generated draws further shapes for the operations that have few, the same ones in every run. They count as large, so that short runs leave them
// out. Attention has a kernel for each class of head sizes, and so many shapes for each.
func generated(ops []Op) []Op {
	rng := rand.New(rand.NewPCG(40, 1))
	upTo := func(n int) int { return 1 + rng.IntN(n) }
	shards := func() (kernels.Shards, int) {
		s := kernels.Shards{Count: 1 << rng.IntN(4), Size: upTo(5)}
		return s, s.Count*s.Size - rng.IntN(s.Size) // the last shard may be short
	}
	noise := func() kernels.Noise {
		return kernels.Noise{N: upTo(4), H: upTo(15), W: upTo(15), C: upTo(5), T: 1 + upTo(1000), Flip: rng.IntN(2) == 0}
	}
	draws := map[string]func() Case{
		"add":            func() Case { return addCase(upTo(9000), rng.IntN(2) == 0) },
		"scale":          func() Case { return scaleCase(upTo(9000), rng.IntN(2) == 0) },
		"silu_forward":   func() Case { return siluForwardCase(upTo(9000)) },
		"silu_backward":  func() Case { return siluBackwardCase(upTo(9000)) },
		"round":          func() Case { return roundCase(upTo(9000)) },
		"grad_norm":      func() Case { return gradNormCase(upTo(90_000)) },
		"sample_time":    func() Case { return sampleTimeCase(upTo(300)) },
		"peak":           func() Case { return peakCase(upTo(9), rng.IntN(300)) },
		"concat_forward": func() Case { return concatCase(upTo(30), upTo(150), upTo(150), false) },
		"concat_backward": func() Case {
			return concatCase(upTo(30), upTo(150), upTo(150), true)
		},
		"noise_add":     func() Case { return noiseAddCase(noise()) },
		"loss":          func() Case { return lossCase(noise(), kernels.Objective(rng.IntN(3)), rng.IntN(2) == 0) },
		"sample_start":  func() Case { return sampleStartCase(upTo(5), upTo(3000)) },
		"sample_update": func() Case { return sampleUpdateCase(upTo(5), upTo(3000), float64(rng.IntN(3))/2, 1) },
		"adam": func() Case {
			a := kernels.Adam{WeightDecay: float64(rng.IntN(2)) / 10, Decoupled: rng.IntN(2) == 0, MaxNorm: float64(rng.IntN(3))}
			return adamCase(upTo(9000), upTo(1000), a, float64(upTo(5)))
		},
		"timestep_embedding": func() Case { return timestepCase(upTo(70), 1+upTo(130), rng.IntN(2) == 0, 0, 1000) },
		"embedding_forward":  func() Case { return embeddingForwardCase(upTo(70), upTo(100), upTo(20)) },
		"embedding_backward": func() Case {
			s, images := shards()
			return embeddingBackwardCase(s, images, upTo(100), upTo(20))
		},
		"pixel_sum": func() Case {
			c := upTo(100)
			return pixelSumCase(upTo(3), upTo(600), c, c+rng.IntN(20))
		},
		"shard_sum": func() Case {
			s, images := shards()
			c := upTo(1100)
			return shardSumCase(s, images, c, c+rng.IntN(20), rng.IntN(2) == 0)
		},
		"tree_sum": func() Case {
			n := upTo(3000)
			return treeSumCase(1<<rng.IntN(6), n, n+rng.IntN(20))
		},
	}
	for _, r := range resamples {
		draws[r.name] = func() Case { return resampleCase(r, upTo(3), 1+upTo(8), 1+upTo(8), upTo(80)) }
	}
	// Channels and pixels for which tensor cores have each of their tiles: up to 32, 64, 128 columns, few and many rows.
	columns := func(class int) int { return []int{8, 40, 72}[class] + 8*rng.IntN([]int{4, 4, 8}[class]) }
	image := func(few bool) (h, w int) {
		if few {
			return upTo(8), upTo(8)
		}
		return 8 + upTo(3), 7 + upTo(3)
	}
	deep := func() int { return 32 * upTo(3) }
	kernel := func() int { return 1 + 2*rng.IntN(2) }
	convolution := func(cin, cout int, few bool) kernels.Conv {
		h, w := image(few)
		k := kernel()
		return conv(upTo(2), h, w, cin, cout, k, k, 1, [4]int{k / 2, k / 2, k / 2, k / 2})
	}
	tiles := map[string]func(class int, few bool) Case{
		"conv_forward": func(class int, few bool) Case {
			return convForwardCase(convolution(deep(), columns(class), few), parts{bias: rng.IntN(2) == 0})
		},
		"conv_backward_data": func(class int, few bool) Case {
			return convBackwardDataCase(convolution(columns(class), deep(), few), parts{residual: rng.IntN(2) == 0})
		},
		"conv_backward_weight": func(class int, few bool) Case {
			g := convolution(deep(), columns(class), true)
			if !few { // more than six tiles of 128 rows
				g = conv(2, upTo(5), upTo(5), 96+32*rng.IntN(2), columns(class), 3, 3, 1, one)
			}
			return convBackwardWeightCase(g, kernels.Shards{Count: 2, Size: 1})
		},
	}
	norms := map[string]func(normCase) Case{"groupnorm_forward": normForwardCase, "groupnorm_backward": normBackwardCase}
	for i := range ops {
		if more := tiles[ops[i].Name]; more != nil {
			for n := range 6 * enoughCases {
				c := more(n%3, n/3%2 == 0)
				c.Large = true
				ops[i].Cases = append(ops[i].Cases, c)
			}
			if ops[i].Name == "conv_backward_weight" { // channels that are no multiple of anything
				for range enoughCases / 4 {
					c := convBackwardWeightCase(conv(2, upTo(6), upTo(6), upTo(40), 17+2*rng.IntN(50), 3, 3, 1, one), kernels.Shards{Count: 2, Size: 1})
					c.Large = true
					ops[i].Cases = append(ops[i].Cases, c)
				}
				for range enoughCases / 2 { // few columns, rows in whole chunks
					c := convBackwardWeightCase(conv(2, upTo(6), upTo(6), 8*upTo(8), upTo(7), 3, 3, 1, one), kernels.Shards{Count: 2, Size: 1})
					c.Large = true
					ops[i].Cases = append(ops[i].Cases, c)
				}
				for n := range 2 * enoughCases {
					cin, cout := upTo(60), columns(n%3)
					if n%4 == 0 {
						cout = upTo(20)
					}
					if n%2 == 0 {
						cin = 8 * upTo(14)
					}
					g := conv(upTo(4), upTo(7), upTo(7), cin, cout, 3, 3, 1, one)
					s, pixels := kernels.Shards{Count: 4, Size: upTo(2)}, g.OH*g.OW
					cut := kernels.Segments{Row: rng.IntN((9*cin+127)/128) * 128, Count: upTo(5), Length: upTo(s.Size * pixels)}
					cut.Count = max(cut.Count, (s.Size*pixels+cut.Length-1)/cut.Length)
					if cut.Count > 9 {
						cut.Count, cut.Length = 9, (s.Size*pixels+8)/9
					}
					c := segmentsCase(g, s, cut)
					c.Large = true
					ops[i].Cases = append(ops[i].Cases, c)
				}
			}
		}
		more, ok := draws[ops[i].Name]
		count := enoughCases - len(ops[i].Cases)
		if ops[i].Name == "shard_sum" {
			count = 2 * enoughCases // of sums, and of activations
		}
		for n := 0; ok && n < count; n++ {
			c := more()
			c.Large = true
			ops[i].Cases = append(ops[i].Cases, c)
		}
		if build := norms[ops[i].Name]; build != nil {
			for range enoughCases / 4 { // with dropout there are kernels of its own
				groups := upTo(6)
				n := kernels.Norm{N: upTo(3), HW: upTo(300), C: groups * (1 + upTo(20)), Groups: groups, Eps: 1e-5, SiLU: true}
				c := build(plainNorm(n).dropped(float64(rng.IntN(10))/10, rng.IntN(kernels.MaxDropoutSites)))
				c.Large = true
				ops[i].Cases = append(ops[i].Cases, c)
			}
		}
		if ops[i].Name != "attention_forward" && ops[i].Name != "attention_backward" {
			continue
		}
		// Below 4 channels a row of dq or dk has so few values that what tf32 rounds within a product that cancels can be beyond the bound.
		for _, class := range [][2]int{{4, 32}, {33, 64}, {65, 128}, {129, 256}} {
			for range enoughCases {
				g := kernels.Attention{N: upTo(2), L: 1 + upTo(90), Heads: upTo(2), Dim: class[0] + rng.IntN(class[1]-class[0]+1)}
				g.Scale = attentionScale(g.Dim)
				c := attentionCase(g, ops[i].Name == "attention_backward")
				c.Large = true
				ops[i].Cases = append(ops[i].Cases, c)
			}
		}
	}
	return ops
}
