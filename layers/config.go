package layers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// UNet2DConfig describes a UNet2D. Its keys are those of the config.json of diffusers' UNet2DModel, so that file reads as it is
// ([ParseUNet2DConfig]); start from [DefaultUNet2DConfig], since a missing key means that class's default. A nil pointer is JSON's null.
//
// Keys whose only supported value is the default (center_input_sample, act_fn, …) are kept to be written back, and checked by Validate.
type UNet2DConfig struct {
	SampleSize        SampleSize `json:"sample_size" yaml:"sample_size"`                 // height and width of the image, in pixels
	InChannels        int        `json:"in_channels" yaml:"in_channels"`                 // channels of the noisy image
	OutChannels       int        `json:"out_channels" yaml:"out_channels"`               // channels of the prediction
	CenterInputSample bool       `json:"center_input_sample" yaml:"center_input_sample"` // 2x − 1 at the input; only false

	TimeEmbeddingType string  `json:"time_embedding_type" yaml:"time_embedding_type"` // only "positional", the sinusoid
	FreqShift         float64 `json:"freq_shift" yaml:"freq_shift"`                   // exponent −ln(10000)·i/(half − freq_shift)
	FlipSinToCos      bool    `json:"flip_sin_to_cos" yaml:"flip_sin_to_cos"`         // [cos, sin] instead of [sin, cos]

	// TimeEmbeddingDim is the width of the time embedding's MLP; nil: 4 times the first of BlockOutChannels.
	TimeEmbeddingDim *int `json:"time_embedding_dim" yaml:"time_embedding_dim"`

	DownBlockTypes       []string `json:"down_block_types" yaml:"down_block_types"` // DownBlock2D | AttnDownBlock2D | ResnetDownsampleBlock2D, finest first
	MidBlockType         string   `json:"mid_block_type,omitempty" yaml:"mid_block_type,omitempty"`
	UpBlockTypes         []string `json:"up_block_types" yaml:"up_block_types"`         // UpBlock2D | AttnUpBlock2D | ResnetUpsampleBlock2D, coarsest first
	BlockOutChannels     []int    `json:"block_out_channels" yaml:"block_out_channels"` // width of each level, finest first
	LayersPerBlock       int      `json:"layers_per_block" yaml:"layers_per_block"`     // residual blocks of a down block; an up block has one more
	MidBlockScaleFactor  float64  `json:"mid_block_scale_factor" yaml:"mid_block_scale_factor"`
	DownsamplePadding    int      `json:"downsample_padding" yaml:"downsample_padding"` // of the stride-2 conv; 0 pads right and bottom by one
	DownsampleType       string   `json:"downsample_type" yaml:"downsample_type"`       // of AttnDownBlock2D: conv | resnet
	UpsampleType         string   `json:"upsample_type" yaml:"upsample_type"`           // of AttnUpBlock2D: conv | resnet
	Dropout              float64  `json:"dropout" yaml:"dropout"`                       // before conv2 of each residual block, in training
	ActFn                string   `json:"act_fn" yaml:"act_fn"`                         // only "silu" (also written "swish")
	AttentionHeadDim     *int     `json:"attention_head_dim" yaml:"attention_head_dim"` // channels of one head; nil: one head
	NormNumGroups        int      `json:"norm_num_groups" yaml:"norm_num_groups"`
	AttnNormNumGroups    *int     `json:"attn_norm_num_groups" yaml:"attn_norm_num_groups"`       // of the mid block's attention; see midNormGroups
	NormEps              float64  `json:"norm_eps" yaml:"norm_eps"`                               // ε of every GroupNorm
	ResnetTimeScaleShift string   `json:"resnet_time_scale_shift" yaml:"resnet_time_scale_shift"` // default (added) | scale_shift
	AddAttention         bool     `json:"add_attention" yaml:"add_attention"`                     // attention in the mid block
	ClassEmbedType       *string  `json:"class_embed_type" yaml:"class_embed_type"`               // only null: a learned table
	NumClassEmbeds       *int     `json:"num_class_embeds" yaml:"num_class_embeds"`               // rows of that table; nil: unconditional
	NumTrainTimesteps    *int     `json:"num_train_timesteps" yaml:"num_train_timesteps"`         // used by no supported time embedding; kept as it is

	// ResnetOutScaleFactor divides skip(x) + h of the residual blocks outside the mid block; √2 in NCSN++ and DDPM++. Zero means 1.
	// It is ours: diffusers' UNet2DModel fixes it at 1.
	ResnetOutScaleFactor float64 `json:"resnet_out_scale_factor,omitempty" yaml:"resnet_out_scale_factor,omitempty"`
}

// DefaultUNet2DConfig returns the defaults of diffusers' UNet2DModel; sample_size has none and must be set.
func DefaultUNet2DConfig() UNet2DConfig {
	headDim := 8
	return UNet2DConfig{
		InChannels:           3,
		OutChannels:          3,
		TimeEmbeddingType:    "positional",
		FlipSinToCos:         true,
		DownBlockTypes:       []string{"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"},
		UpBlockTypes:         []string{"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"},
		BlockOutChannels:     []int{224, 448, 672, 896},
		LayersPerBlock:       2,
		MidBlockScaleFactor:  1,
		DownsamplePadding:    1,
		DownsampleType:       "conv",
		UpsampleType:         "conv",
		ActFn:                "silu",
		AttentionHeadDim:     &headDim,
		NormNumGroups:        32,
		NormEps:              1e-5,
		ResnetTimeScaleShift: "default",
		AddAttention:         true,
	}
}

// CIFAR10DDPM returns the configuration of google/ddpm-cifar10-32, the network of Ho et al. 2020 for CIFAR-10: 35,746,307 parameters.
func CIFAR10DDPM() UNet2DConfig {
	c := DefaultUNet2DConfig()
	c.SampleSize = SampleSize{32, 32}
	c.FlipSinToCos = false
	c.FreqShift = 1
	c.DownBlockTypes = []string{"DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"}
	c.UpBlockTypes = []string{"UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"}
	c.BlockOutChannels = []int{128, 256, 256, 256}
	c.DownsamplePadding = 0
	c.AttentionHeadDim = nil
	c.NormEps = 1e-6
	return c
}

// ParseUNet2DConfig reads a config.json of diffusers' UNet2DModel: missing keys get that class's defaults, keys that begin with an underscore
// (_class_name, _diffusers_version, …) are skipped, any other unknown key is an error.
func ParseUNet2DConfig(data []byte) (UNet2DConfig, error) {
	c := DefaultUNet2DConfig()
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return c, fmt.Errorf("reading a UNet2DModel configuration: %w", err)
	}
	if raw, ok := keys["_class_name"]; ok {
		var class string
		if err := json.Unmarshal(raw, &class); err != nil || class != "UNet2DModel" {
			return c, fmt.Errorf("reading a UNet2DModel configuration: _class_name is %s", raw)
		}
	}
	for key := range keys {
		if strings.HasPrefix(key, "_") {
			delete(keys, key)
		}
	}
	public, err := json.Marshal(keys)
	if err != nil {
		return c, fmt.Errorf("reading a UNet2DModel configuration: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(public))
	d.DisallowUnknownFields()
	// A JSON array is decoded over the default slice: without this, a shorter list would share the default's memory.
	c.DownBlockTypes, c.UpBlockTypes, c.BlockOutChannels = nil, nil, nil
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("reading a UNet2DModel configuration: %w", err)
	}
	def := DefaultUNet2DConfig()
	if keys["down_block_types"] == nil {
		c.DownBlockTypes = def.DownBlockTypes
	}
	if keys["up_block_types"] == nil {
		c.UpBlockTypes = def.UpBlockTypes
	}
	if keys["block_out_channels"] == nil {
		c.BlockOutChannels = def.BlockOutChannels
	}
	return c, nil
}

// The largest values of a configuration, so that a file cannot ask for a graph without end.
const (
	maxSide     = 1 << 14 // pixels
	maxChannels = 1 << 16
	maxClasses  = 1 << 24
	maxLevels   = 16
	maxLayers   = 32 // of a block
)

// Validate checks every field that shape inference does not see, and says which value of which key is not supported.
func (c UNet2DConfig) Validate() error {
	bad := func(key string, value any, want string) error {
		return fmt.Errorf("unet configuration: %s is %v, %s", key, value, want)
	}
	for _, limit := range []struct {
		key        string
		value, max int
	}{
		{"sample_size", max(c.SampleSize.H, c.SampleSize.W), maxSide},
		{"in_channels", c.InChannels, maxChannels},
		{"out_channels", c.OutChannels, maxChannels},
		{"block_out_channels", slices.Max(append([]int{0}, c.BlockOutChannels...)), maxChannels},
		{"time_embedding_dim", orZero(c.TimeEmbeddingDim), maxChannels},
		{"num_class_embeds", orZero(c.NumClassEmbeds), maxClasses},
		{"levels of block_out_channels", len(c.BlockOutChannels), maxLevels},
		{"layers_per_block", c.LayersPerBlock, maxLayers},
		{"downsample_padding", c.DownsamplePadding, maxSide},
	} {
		if limit.value > limit.max {
			return bad(limit.key, limit.value, fmt.Sprintf("at most %d is supported", limit.max))
		}
	}
	switch {
	case c.SampleSize.H < 1 || c.SampleSize.W < 1:
		return bad("sample_size", c.SampleSize, "want the height and width of an image, as one number or [height, width]")
	case c.InChannels < 1:
		return bad("in_channels", c.InChannels, "want at least 1")
	case c.OutChannels < 1:
		return bad("out_channels", c.OutChannels, "want at least 1")
	case c.CenterInputSample:
		return bad("center_input_sample", true, "only false is supported: scale images to [-1, 1] before the network")
	case c.TimeEmbeddingType != "positional":
		return bad("time_embedding_type", c.TimeEmbeddingType, `only "positional" is supported`)
	case c.TimeEmbeddingDim != nil && *c.TimeEmbeddingDim < 1:
		return bad("time_embedding_dim", *c.TimeEmbeddingDim, "want at least 1, or null")
	case c.ActFn != "silu" && c.ActFn != "swish":
		return bad("act_fn", c.ActFn, `only "silu" is supported`)
	case c.MidBlockType != "" && c.MidBlockType != "UNetMidBlock2D":
		return bad("mid_block_type", c.MidBlockType, `only "UNetMidBlock2D" is supported`)
	case c.ClassEmbedType != nil:
		return bad("class_embed_type", *c.ClassEmbedType, "only null is supported: num_class_embeds alone gives a learned table")
	case c.NumClassEmbeds != nil && *c.NumClassEmbeds < 1:
		return bad("num_class_embeds", *c.NumClassEmbeds, "want at least 1, or null")
	case len(c.BlockOutChannels) == 0:
		return bad("block_out_channels", c.BlockOutChannels, "want one width for each level")
	case len(c.DownBlockTypes) != len(c.BlockOutChannels):
		return bad("down_block_types", c.DownBlockTypes, fmt.Sprintf("want %d entries, as block_out_channels has", len(c.BlockOutChannels)))
	case len(c.UpBlockTypes) != len(c.BlockOutChannels):
		return bad("up_block_types", c.UpBlockTypes, fmt.Sprintf("want %d entries, as block_out_channels has", len(c.BlockOutChannels)))
	case c.LayersPerBlock < 1:
		return bad("layers_per_block", c.LayersPerBlock, "want at least 1")
	case !(c.MidBlockScaleFactor > 0):
		return bad("mid_block_scale_factor", c.MidBlockScaleFactor, "want a positive number")
	case !(c.ResnetOutScaleFactor >= 0):
		return bad("resnet_out_scale_factor", c.ResnetOutScaleFactor, "want a positive number")
	case c.DownsamplePadding < 0:
		return bad("downsample_padding", c.DownsamplePadding, "want 0 (right and bottom by one) or more")
	case c.DownsampleType != "conv" && c.DownsampleType != "resnet":
		return bad("downsample_type", c.DownsampleType, `want "conv" or "resnet"`)
	case c.UpsampleType != "conv" && c.UpsampleType != "resnet":
		return bad("upsample_type", c.UpsampleType, `want "conv" or "resnet"`)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return bad("dropout", c.Dropout, "want a probability below 1")
	case c.AttentionHeadDim != nil && *c.AttentionHeadDim < 1:
		return bad("attention_head_dim", *c.AttentionHeadDim, "want at least 1, or null for one head")
	case c.NormNumGroups < 1:
		return bad("norm_num_groups", c.NormNumGroups, "want at least 1")
	case c.AttnNormNumGroups != nil && *c.AttnNormNumGroups < 1:
		return bad("attn_norm_num_groups", *c.AttnNormNumGroups, "want at least 1, or null")
	case !(c.NormEps > 0):
		return bad("norm_eps", c.NormEps, "want a positive number")
	case c.ResnetTimeScaleShift != "default" && c.ResnetTimeScaleShift != "scale_shift":
		return bad("resnet_time_scale_shift", c.ResnetTimeScaleShift, `want "default" or "scale_shift"`)
	case c.BlockOutChannels[0]%2 != 0:
		return bad("block_out_channels", c.BlockOutChannels, "the first width is the sinusoid's and must be even")
	case !(c.FreqShift < float64(c.BlockOutChannels[0]/2)):
		return bad("freq_shift", c.FreqShift, fmt.Sprintf("want less than half the first width, %d", c.BlockOutChannels[0]/2))
	}
	for i, ch := range c.BlockOutChannels {
		if ch < 1 {
			return bad(fmt.Sprintf("block_out_channels[%d]", i), ch, "want at least 1")
		}
	}
	for i, t := range c.DownBlockTypes {
		switch t {
		case "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D":
		default:
			return bad(fmt.Sprintf("down_block_types[%d]", i), t, "want DownBlock2D, AttnDownBlock2D or ResnetDownsampleBlock2D")
		}
	}
	for i, t := range c.UpBlockTypes {
		switch t {
		case "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D":
		default:
			return bad(fmt.Sprintf("up_block_types[%d]", i), t, "want UpBlock2D, AttnUpBlock2D or ResnetUpsampleBlock2D")
		}
	}
	return nil
}

// orZero is the number that p points at, if any.
func orZero(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

// SampleSize is the height and width of an image; in a file one number for a square, or [height, width]. The zero value is null.
type SampleSize struct{ H, W int }

func (s SampleSize) String() string {
	if s == (SampleSize{}) {
		return "null"
	}
	return fmt.Sprintf("%dx%d", s.H, s.W)
}

// plain is the value as a file has it: nil, a number, or a pair.
func (s SampleSize) plain() any {
	switch {
	case s == SampleSize{}:
		return nil
	case s.H == s.W:
		return s.H
	}
	return []int{s.H, s.W}
}

// set takes a value as a file has it, through a decoder for one Go type at a time.
func (s *SampleSize) set(decode func(any) error) error {
	// Not a *int: go-yaml leaves a nil pointer as it is. Null leaves 0, the zero value, in both formats.
	var one int
	if err := decode(&one); err == nil {
		*s = SampleSize{one, one}
		return nil
	}
	var two []int
	if err := decode(&two); err != nil || len(two) != 2 {
		return fmt.Errorf("sample_size: want one whole number or [height, width]")
	}
	*s = SampleSize{two[0], two[1]}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (s SampleSize) MarshalJSON() ([]byte, error) { return json.Marshal(s.plain()) }

// UnmarshalJSON implements json.Unmarshaler.
func (s *SampleSize) UnmarshalJSON(b []byte) error {
	return s.set(func(v any) error { return json.Unmarshal(b, v) })
}

// MarshalYAML implements the marshaler interface of goccy/go-yaml.
func (s SampleSize) MarshalYAML() (any, error) { return s.plain(), nil }

// UnmarshalYAML implements the unmarshaler interface of goccy/go-yaml.
func (s *SampleSize) UnmarshalYAML(decode func(any) error) error { return s.set(decode) }
