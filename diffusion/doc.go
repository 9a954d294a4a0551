// Package diffusion trains and samples denoising diffusion models.
//
// A Config says everything about a run. The parts live in packages of their own: schedule (the
// noise of each step), sampler (how an image is drawn), data (images from files), safetensors and
// checkpoint (what is kept on disk).
package diffusion
