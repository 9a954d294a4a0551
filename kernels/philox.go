package kernels

import "math"

// Purpose keeps the random numbers of different uses apart. Kernels draw with the same purposes (philox.cuh).
type Purpose uint32

// The purposes. Dropout layer s draws with DrawDropout + s, s < 128.
const (
	DrawIndex    Purpose = 1  // n of a training sample
	DrawNoise    Purpose = 2  // ε of a training sample
	DrawFlip     Purpose = 3  // whether an image is mirrored
	DrawStart    Purpose = 4  // where sampling starts
	DrawSampling Purpose = 5  // noise of a sampling step
	DrawWeights  Purpose = 6  // weights before training; the image is the number of the tensor
	DrawDropout  Purpose = 64 // masks
)

// Philox is Philox4x32-10: four random 32-bit numbers, a function of a counter and a key (Salmon et al. 2011, "Parallel random numbers:
// as easy as 1, 2, 3").
func Philox(key [2]uint32, counter [4]uint32) [4]uint32 {
	k0, k1, c := key[0], key[1], counter
	for range 10 {
		p0, p1 := uint64(0xD2511F53)*uint64(c[0]), uint64(0xCD9E8D57)*uint64(c[2])
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ k0, uint32(p1), uint32(p0>>32) ^ c[3] ^ k1, uint32(p0)}
		k0, k1 = k0+0x9E3779B9, k1+0xBB67AE85
	}
	return c
}

// Stream is the random numbers of one purpose for one image at one step. Element e of the image uses number e%4 of block e/4.
type Stream struct {
	Seed    uint64
	Purpose Purpose
	Image   uint64
	Step    uint64
}

// Block is four numbers of the stream, with key seed and counter (block, image low, step low, purpose<<24 | image bits 32 … 55).
func (s Stream) Block(block uint32) [4]uint32 {
	return Philox([2]uint32{uint32(s.Seed), uint32(s.Seed >> 32)},
		[4]uint32{block, uint32(s.Image), uint32(s.Step), uint32(s.Purpose)<<24 | uint32(s.Image>>32)&0xffffff})
}

// Normals are standard normals of the elements 0 … len(z)−1, by Box-Muller from the pairs of numbers (0, 1) and (2, 3) of a block.
func (s Stream) Normals(z []float64) {
	for e := 0; e < len(z); e += 4 {
		r := s.Block(uint32(e / 4))
		for i := 0; i < 4; i += 2 {
			radius := math.Sqrt(-2 * math.Log((float64(r[i])+0.5)/(1<<32)))
			sin, cos := math.Sincos(2 * math.Pi * float64(int32(r[i+1])) / (1 << 32))
			for j, v := range []float64{radius * cos, radius * sin} {
				if e+i+j < len(z) {
					z[e+i+j] = v
				}
			}
		}
	}
}
