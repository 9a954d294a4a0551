package layers

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// The configuration published with google/ddpm-cifar10-32.
const cifar10Config = `{
  "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": null,
  "block_out_channels": [128, 256, 256, 256], "center_input_sample": false,
  "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
  "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2,
  "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
  "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
}`

func TestParseUNet2DConfig(t *testing.T) {
	got, err := ParseUNet2DConfig([]byte(cifar10Config))
	if err != nil {
		t.Fatal(err)
	}
	if want := CIFAR10DDPM(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	out, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseUNet2DConfig(out)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, got) {
		t.Errorf("written and read: %s", out)
	}
}

func TestParseUNet2DConfigDefaults(t *testing.T) {
	got, err := ParseUNet2DConfig([]byte(`{"sample_size": [28, 24], "block_out_channels": [32, 64]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultUNet2DConfig()
	want.SampleSize = SampleSize{28, 24}
	want.BlockOutChannels = []int{32, 64}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if *got.AttentionHeadDim != 8 || got.NormEps != 1e-5 || got.DownsamplePadding != 1 || !got.FlipSinToCos || !got.AddAttention {
		t.Errorf("not the defaults of diffusers' class: %+v", got)
	}
}

func TestUNet2DConfigErrors(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"sample_sise": 32}`, "sample_sise"},
		{`{"sample_size": [1, 2, 3]}`, "sample_size"},
		{`{"sample_size": "big"}`, "sample_size"},
		{`{"_class_name": "UNet2DConditionModel"}`, "UNet2DConditionModel"},
		{`[]`, "UNet2DModel"},
		{`{}`, "sample_size is null"},
		{`{"sample_size": 32, "act_fn": "gelu"}`, "act_fn is gelu"},
		{`{"sample_size": 32, "center_input_sample": true}`, "center_input_sample"},
		{`{"sample_size": 32, "time_embedding_type": "fourier"}`, "time_embedding_type is fourier"},
		{`{"sample_size": 32, "class_embed_type": "timestep"}`, "class_embed_type is timestep"},
		{`{"sample_size": 32, "down_block_types": ["SkipDownBlock2D","DownBlock2D","DownBlock2D","DownBlock2D"]}`, "down_block_types[0] is SkipDownBlock2D"},
		{`{"sample_size": 32, "up_block_types": ["UpBlock2D"]}`, "want 4 entries"},
		{`{"sample_size": 32, "dropout": 1}`, "dropout is 1"},
		{`{"sample_size": 32, "resnet_time_scale_shift": "ada_group"}`, "resnet_time_scale_shift is ada_group"},
		{`{"sample_size": 32, "downsample_type": "fir"}`, "downsample_type is fir"},
		{`{"sample_size": 1000000}`, "sample_size is 1000000, at most 16384"},
		{`{"sample_size": 32, "layers_per_block": 1000000000}`, "layers_per_block is 1000000000, at most 32"},
		{`{"sample_size": 32, "block_out_channels": [32, 1000000, 32, 32]}`, "block_out_channels is 1000000, at most 65536"},
		{`{"sample_size": 32, "num_class_embeds": 100000000}`, "num_class_embeds is 100000000"},
		{`{"sample_size": 32, "freq_shift": 112}`, "freq_shift is 112"},
		{`{"sample_size": 32, "mid_block_scale_factor": 0}`, "mid_block_scale_factor is 0"},
		{`{"sample_size": 32, "time_embedding_dim": 0}`, "time_embedding_dim is 0"},
		{`{"sample_size": 32, "norm_num_groups": 0}`, "norm_num_groups is 0"},
	} {
		cfg, err := ParseUNet2DConfig([]byte(c.json))
		if err == nil {
			err = cfg.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one that has %q", c.json, err, c.want)
		}
	}
}

// FuzzParseUNet2DConfig: whatever a config.json holds, there is a network with a plan, or an error.
func FuzzParseUNet2DConfig(f *testing.F) {
	f.Add([]byte(cifar10Config))
	f.Add([]byte(`{"sample_size": [8, 12], "block_out_channels": [4, 6], "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
		"up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "norm_num_groups": 2, "resnet_time_scale_shift": "scale_shift",
		"attention_head_dim": 3, "dropout": 0.1, "num_class_embeds": 3, "time_embedding_dim": 5, "mid_block_scale_factor": 1.5}`))
	f.Add([]byte(`{"sample_size": 32, "layers_per_block": 32}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseUNet2DConfig(text)
		if err != nil {
			return
		}
		g, err := NewUNet2D(c)
		if err != nil {
			return
		}
		if p, err := g.Plan(PlanOptions{Batch: 2, Train: true}); err == nil && (p.Total() <= 0 || g.Parameters <= 0) {
			t.Errorf("%d bytes, %d parameters", p.Total(), g.Parameters)
		}
	})
}
