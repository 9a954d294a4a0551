package diffusion

import (
	"math"
	"testing"
)

func TestPixelsInvertsTheScaling(t *testing.T) {
	for p := range 256 {
		if got := Pixels([]float32{float32(p)/127.5 - 1})[0]; int(got) != p {
			t.Errorf("pixel %d comes back as %d", p, got)
		}
	}
	got := Pixels([]float32{-1.5, 1.5, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 0.0039})
	for i, want := range []byte{0, 255, 255, 0, 0, 128} {
		if got[i] != want {
			t.Errorf("value %d becomes %d, want %d", i, got[i], want)
		}
	}
}
