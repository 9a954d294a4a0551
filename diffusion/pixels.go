package diffusion

// Pixels turns images in [−1, 1] into bytes: round(127.5·(x + 1)), beyond the ends 0 and 255. It is the inverse of how images become numbers in
// training. What is not a number becomes 0.
func Pixels(images []float32) []byte {
	pixels := make([]byte, len(images))
	for i, x := range images {
		switch v := 127.5*float64(x) + 127.5; {
		case v >= 255:
			pixels[i] = 255
		case v > 0:
			pixels[i] = byte(v + 0.5)
		}
	}
	return pixels
}

// Classes is how many classes the network can be told, 0 for none.
func (c *Config) Classes() int {
	if c.Model.NumClassEmbeds == nil {
		return 0
	}
	return *c.Model.NumClassEmbeds
}
