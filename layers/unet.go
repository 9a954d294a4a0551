package layers

import (
	"fmt"
	"math"
)

// NewUNet2D builds the network of a configuration: diffusers' UNet2DModel with the same names, the prediction from a noisy image and the
// step that it is at.
//
//	temb = silu(linear_2(silu(linear_1(sinusoids(time)))) + class_embedding[label])
//	h = conv_in(x)
//	down blocks: residual blocks, each with attention or not, then half the size; every one's output is kept as a skip
//	mid block: residual block, attention, residual block
//	up blocks: residual blocks of (h, skip), the last skip first, each with attention or not, then double the size
//	y = conv_out(silu(conv_norm_out(h)))
func NewUNet2D(c UNet2DConfig) (*Graph, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	u := &unet{builder: newBuilder(Shape{c.SampleSize.H, c.SampleSize.W, c.InChannels}), c: c, outScale: 1}
	if c.ResnetOutScaleFactor != 0 {
		u.outScale = 1 / c.ResnetOutScaleFactor
	}
	u.embeddings()
	widths := c.BlockOutChannels
	last := len(widths) - 1

	h := u.conv("conv_in", u.g.x, widths[0], convOptions{kernel: 3, pad: same(3)})
	skips := []*value{h}
	for i, kind := range c.DownBlockTypes {
		h, skips = u.downBlock(fmt.Sprintf("down_blocks.%d", i), kind, h, skips, widths[i], i < last)
	}
	h = u.midBlock("mid_block", h)
	for i, kind := range c.UpBlockTypes {
		h, skips = u.upBlock(fmt.Sprintf("up_blocks.%d", i), kind, h, skips, widths[last-i], i < last)
	}
	h = u.groupNorm("conv_norm_out", h, c.NormNumGroups, c.NormEps, true, nil)
	h = u.conv("conv_out", h, c.OutChannels, convOptions{kernel: 3, pad: same(3)})
	g, err := u.finish(h)
	if err != nil {
		return nil, fmt.Errorf("building a UNet2D for %v images: %w", u.g.In, err)
	}
	if h.shape.H != u.g.In.H || h.shape.W != u.g.In.W {
		return nil, fmt.Errorf("building a UNet2D for %v images: its output is %v", u.g.In, h.shape)
	}
	return g, nil
}

// unet builds a UNet2D.
type unet struct {
	*builder
	c        UNet2DConfig
	temb     *value  // SiLU of the embedding of time and class
	outScale float64 // of the residual blocks outside of the mid block
}

func (u *unet) embeddings() {
	width := 4 * u.c.BlockOutChannels[0]
	if u.c.TimeEmbeddingDim != nil {
		width = *u.c.TimeEmbeddingDim
	}
	t := u.timeEmbedding("time_proj", u.c.BlockOutChannels[0], u.c.FlipSinToCos, u.c.FreqShift)
	t = u.linearSiLU("time_embedding.linear_1", t, width)
	if u.c.NumClassEmbeds == nil {
		u.temb = u.linearSiLU("time_embedding.linear_2", t, width)
		return
	}
	t = u.linear("time_embedding.linear_2", t, width, nil, 1)
	t = u.classEmbedding("class_embedding", t, *u.c.NumClassEmbeds)
	u.temb = u.silu("time_embedding.silu", t)
}

// resize is what a residual block does to the size of its image.
type resize int

const (
	keep resize = iota
	half
	double
)

// resize changes an image's size without parameters.
func (u *unet) resize(name string, x *value, r resize) *value {
	switch r {
	case half:
		return u.averagePool(name+".downsample", x)
	case double:
		return u.upsample(name+".upsample", x)
	}
	return x
}

// resnet is a residual block (skip(x) + h)·scale,
//
//	h = conv1(resize(silu(norm1(x)))) + time_emb_proj(temb)
//	h = conv2(dropout(silu(norm2(h)))), or with scale_shift silu(norm2(h)·(1 + scale) + shift), (scale, shift) = time_emb_proj(temb)
//
// with skip the 1×1 conv_shortcut where the widths differ. The shortcut comes first: then its backward comes last and adds norm1's gradient.
func (u *unet) resnet(name string, x *value, width int, r resize, scale float64) *value {
	c := u.c
	skip := u.resize(name, x, r)
	if x.shape.C != width {
		skip = u.conv(name+".conv_shortcut", skip, width, convOptions{})
	}
	h := u.groupNorm(name+".norm1", x, c.NormNumGroups, c.NormEps, true, nil)
	h = u.resize(name, h, r)
	if c.ResnetTimeScaleShift == "scale_shift" {
		h = u.conv(name+".conv1", h, width, convOptions{kernel: 3, pad: same(3)})
		t := u.linear(name+".time_emb_proj", u.temb, 2*width, nil, 1)
		h = u.groupNormDropout(name+".norm2", h, c.NormNumGroups, c.NormEps, true, t, c.Dropout)
	} else {
		t := u.linear(name+".time_emb_proj", u.temb, width, nil, 1)
		h = u.conv(name+".conv1", h, width, convOptions{kernel: 3, pad: same(3), perImage: t})
		h = u.groupNormDropout(name+".norm2", h, c.NormNumGroups, c.NormEps, true, nil, c.Dropout)
	}
	return u.conv(name+".conv2", h, width, convOptions{kernel: 3, pad: same(3), residual: skip, scale: scale})
}

// attentionBlock is (x + to_out(attention(to_q(h), to_k(h), to_v(h))))·scale, h = group_norm(x), or x where groups is 0.
func (u *unet) attentionBlock(name string, x *value, groups int, scale float64) *value {
	width, dim := x.shape.C, x.shape.C
	if u.c.AttentionHeadDim != nil {
		dim = *u.c.AttentionHeadDim
	}
	heads := width / dim
	if heads == 0 {
		u.fail(name, "heads of %d channels over an input of %v", dim, x.shape)
		return x
	}
	h := x
	if groups > 0 {
		h = u.groupNorm(name+".group_norm", x, groups, u.c.NormEps, false, nil)
	}
	q := u.linear(name+".to_q", h, heads*dim, nil, 1)
	k := u.linear(name+".to_k", h, heads*dim, nil, 1)
	v := u.linear(name+".to_v", h, heads*dim, nil, 1)
	y := u.attention(name, q, k, v, heads, 1/math.Sqrt(float64(dim)))
	return u.linear(name+".to_out.0", y, width, x, scale)
}

// downBlock appends its skips.
func (u *unet) downBlock(name, kind string, h *value, skips []*value, width int, downsample bool) (*value, []*value) {
	for j := range u.c.LayersPerBlock {
		h = u.resnet(fmt.Sprintf("%s.resnets.%d", name, j), h, width, keep, u.outScale)
		if kind == "AttnDownBlock2D" {
			h = u.attentionBlock(fmt.Sprintf("%s.attentions.%d", name, j), h, u.c.NormNumGroups, 1)
		}
		skips = append(skips, h)
	}
	if !downsample {
		return h, skips
	}
	name += ".downsamplers.0"
	if kind == "ResnetDownsampleBlock2D" || kind == "AttnDownBlock2D" && u.c.DownsampleType == "resnet" {
		h = u.resnet(name, h, width, half, u.outScale)
	} else {
		p := u.c.DownsamplePadding
		pad := [4]int{p, p, p, p}
		if p == 0 {
			pad = [4]int{0, 1, 0, 1}
		}
		h = u.conv(name+".conv", h, width, convOptions{kernel: 3, stride: 2, pad: pad})
	}
	return h, append(skips, h)
}

func (u *unet) midBlock(name string, h *value) *value {
	scale, width := 1/u.c.MidBlockScaleFactor, h.shape.C
	h = u.resnet(name+".resnets.0", h, width, keep, scale)
	if u.c.AddAttention {
		h = u.attentionBlock(name+".attentions.0", h, u.c.midNormGroups(), scale)
	}
	return u.resnet(name+".resnets.1", h, width, keep, scale)
}

// midNormGroups is the groups of the mid block's attention; with scale_shift diffusers has no normalisation there unless it is asked for.
func (c UNet2DConfig) midNormGroups() int {
	switch {
	case c.AttnNormNumGroups != nil:
		return *c.AttnNormNumGroups
	case c.ResnetTimeScaleShift == "scale_shift":
		return 0
	}
	return c.NormNumGroups
}

// upBlock takes its skips from the end.
func (u *unet) upBlock(name, kind string, h *value, skips []*value, width int, upsample bool) (*value, []*value) {
	for j := range u.c.LayersPerBlock + 1 {
		resnet := fmt.Sprintf("%s.resnets.%d", name, j)
		last := len(skips) - 1
		h = u.concat(resnet, h, skips[last])
		skips = skips[:last]
		h = u.resnet(resnet, h, width, keep, u.outScale)
		if kind == "AttnUpBlock2D" {
			h = u.attentionBlock(fmt.Sprintf("%s.attentions.%d", name, j), h, u.c.NormNumGroups, 1)
		}
	}
	if !upsample {
		return h, skips
	}
	name += ".upsamplers.0"
	if kind == "ResnetUpsampleBlock2D" || kind == "AttnUpBlock2D" && u.c.UpsampleType == "resnet" {
		return u.resnet(name, h, width, double, u.outScale), skips
	}
	h = u.upsample(name, h)
	return u.conv(name+".conv", h, width, convOptions{kernel: 3, pad: same(3)}), skips
}
