package data

import "fmt"

// Config says where a run's images are and how they are prepared.
type Config struct {
	// Path is a folder or file (see Open), or fashion-mnist for Debian's package of that name.
	Path string `yaml:"path" json:"path"`
	// Format is auto, idx, cifar10 or folder.
	Format string `yaml:"format" json:"format"`
	// Flip mirrors each image left to right with probability ½ in training.
	Flip bool `yaml:"flip" json:"flip"`
	// Holdout images are kept out of training for the validation loss, unless the format
	// brings its own test set.
	Holdout int `yaml:"holdout" json:"holdout"`
}

// DefaultConfig looks at the folder to find the format, and holds 1,000 images out.
func DefaultConfig() Config { return Config{Format: "auto", Holdout: 1000} }

// Validate says what is wrong with c without looking at the disk.
func (c *Config) Validate() error {
	switch c.Format {
	case "auto", "idx", "cifar10", "folder":
	default:
		return fmt.Errorf("format is %q, it must be auto, idx, cifar10 or folder", c.Format)
	}
	if c.Holdout < 0 {
		return fmt.Errorf("holdout is %d, it must not be negative", c.Holdout)
	}
	return nil
}
