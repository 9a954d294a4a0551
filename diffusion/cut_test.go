package diffusion

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckDevices(t *testing.T) {
	for _, test := range []struct {
		shards, micro, devices int
		says                   string // "" where it is possible
	}{
		{8, 1, 8, ""}, {8, 4, 2, ""}, {32, 1, 1, ""}, {64, 2, 1, ""}, {1024, 1, 32, ""},
		{8, 1, 3, "power of two"}, {8, 2, 8, "at most the shards"}, {64, 1, 64, "at most 32"}, {64, 1, 1, "at most 32 shards"}, {1024, 2, 8, "at most 32 shards"},
	} {
		c := TrainConfig{Shards: test.shards, MicroBatches: test.micro}
		err := c.checkDevices(test.devices)
		var key *ConfigError
		if possible := test.says == ""; possible != (err == nil) ||
			!possible && (!errors.As(err, &key) || key.Key != "train.shards" || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
