package layers

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"ddgpu/kernels"
)

// TestCIFAR10 compares names and shapes with those of google/ddpm-cifar10-32.
func TestCIFAR10(t *testing.T) {
	text, err := os.ReadFile("../testdata/golden/cifar10_ddpm_tensors.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Config     json.RawMessage
		Parameters int64
		Tensors    []struct {
			Name  string
			Shape []int
		}
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	c, err := ParseUNet2DConfig(want.Config)
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewUNet2D(c)
	if err != nil {
		t.Fatal(err)
	}
	if g.Parameters != want.Parameters || want.Parameters != 35_746_307 || len(g.Params) != 328 {
		t.Errorf("%d parameters in %d tensors, want %d in 328", g.Parameters, len(g.Params), want.Parameters)
	}
	shapes := map[string][]int{}
	for _, p := range want.Tensors {
		shapes[p.Name] = p.Shape
	}
	for _, p := range g.Params {
		if !reflect.DeepEqual(shapes[p.Name], p.Shape) {
			t.Errorf("%s is %v, want %v", p.Name, p.Shape, shapes[p.Name])
		}
		delete(shapes, p.Name)
	}
	if len(shapes) != 0 {
		t.Errorf("missing: %v", shapes)
	}
}

func TestShapeErrors(t *testing.T) {
	small := func(change func(c *UNet2DConfig)) UNet2DConfig {
		c := DefaultUNet2DConfig()
		c.SampleSize, c.BlockOutChannels, c.NormNumGroups = SampleSize{8, 8}, []int{4, 8}, 2
		c.DownBlockTypes, c.UpBlockTypes = []string{"DownBlock2D", "AttnDownBlock2D"}, []string{"UpBlock2D", "UpBlock2D"}
		change(&c)
		return c
	}
	if _, err := NewUNet2D(small(func(*UNet2DConfig) {})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(c *UNet2DConfig)
	}{
		{"up_blocks.1.resnets.0: concatenating 8x8x8 (hidden) and 7x8x4 (skip), of different sizes",
			func(c *UNet2DConfig) { c.SampleSize = SampleSize{7, 8} }},
		{"up_blocks.1.resnets.0: concatenating 8x6x8 (hidden) and 9x7x4 (skip), of different sizes", func(c *UNet2DConfig) {
			c.SampleSize, c.DownBlockTypes[0] = SampleSize{9, 7}, "ResnetDownsampleBlock2D"
		}},
		{"up_blocks.1.resnets.0: concatenating 10x10x8 (hidden) and 8x8x4 (skip), of different sizes",
			func(c *UNet2DConfig) { c.DownsamplePadding = 2 }},
		{"down_blocks.0.downsamplers.0.conv: a kernel of 3x3 does not fit into an input of 1x8x4 with padding [0 1 0 1]",
			func(c *UNet2DConfig) { c.SampleSize, c.DownsamplePadding = SampleSize{1, 8}, 0 }},
		{"down_blocks.0.downsamplers.0.downsample: a window of 2x2 does not fit into an input of 8x1x4", func(c *UNet2DConfig) {
			c.SampleSize, c.DownBlockTypes[0] = SampleSize{8, 1}, "ResnetDownsampleBlock2D"
		}},
		{"down_blocks.0.resnets.0.norm1: 3 groups do not divide the channels of its input of 8x8x4",
			func(c *UNet2DConfig) { c.NormNumGroups = 3 }},
		{"mid_block.attentions.0.group_norm: 5 groups do not divide the channels of its input of 4x4x8",
			func(c *UNet2DConfig) { five := 5; c.AttnNormNumGroups = &five }},
		{"down_blocks.1.attentions.0: heads of 9 channels over an input of 4x4x8",
			func(c *UNet2DConfig) { nine := 9; c.AttentionHeadDim = &nine }},
		{"down_blocks.1.attentions.0: 1 heads over an input of 4x4x260: want heads of at most 256 channels",
			func(c *UNet2DConfig) { c.AttentionHeadDim, c.BlockOutChannels[1] = nil, 260 }},
		{"up_blocks.1.resnets.29.norm2: a network has at most 128 dropout layers", func(c *UNet2DConfig) {
			c.Dropout, c.LayersPerBlock = 0.1, 32
		}},
	} {
		_, err := NewUNet2D(small(c.change))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want one that has %q", err, c.want)
		}
	}
}

func TestPlanErrors(t *testing.T) {
	g, err := NewUNet2D(CIFAR10DDPM())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want    string
		options PlanOptions
	}{
		{"a batch of 0 images", PlanOptions{}},
		{"2 shards of 3 images do not hold a batch of 7", PlanOptions{Batch: 7, Train: true, Shards: shards(2, 3)}},
		{"conv_in: 4194304 images of 32x32x128 have more pixels", PlanOptions{Batch: 1 << 22}},
		{"conv_in: a shard of 16385 images of 32x32x128 has more values", PlanOptions{Batch: 16385, Train: true}},
	} {
		_, err := g.Plan(c.options)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want one that has %q", err, c.want)
		}
	}
}

func TestOperations(t *testing.T) {
	g, err := NewUNet2D(CIFAR10DDPM())
	if err != nil {
		t.Fatal(err)
	}
	o := g.Operations()
	flops := map[kernels.Conv]bool{}
	for _, c := range append(o.Convs, o.Linears...) {
		if flops[c] {
			t.Errorf("%+v is there twice", c)
		}
		flops[c] = true
	}
	for what, n := range map[string][2]int{ // counted in diffusers' network, by forward hooks
		"convolutions": {len(o.Convs), 24}, "matrices": {len(o.Linears), 6}, "norms": {len(o.Norms), 13}, "attentions": {len(o.Attentions), 2},
		"upsamples": {len(o.Upsamples), 3}, "average pools": {len(o.AvgPools), 0},
	} {
		if n[0] != n[1] {
			t.Errorf("%d %s, want %d", n[0], what, n[1])
		}
	}
}

// 6.22 billion multiply-adds, as the paper's network is quoted with.
func TestFLOPs(t *testing.T) {
	g, err := NewUNet2D(CIFAR10DDPM())
	if err != nil {
		t.Fatal(err)
	}
	if gmac := g.FLOPs() / 2e9; gmac < 6 || gmac > 6.5 {
		t.Errorf("%.3f GMAC, want 6.2", gmac)
	}
}
