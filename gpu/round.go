package gpu

import "errors"

// Round runs one function on every device at the same time, as [Machine.Each] does, but can be run again and again without allocating.
type Round struct {
	devices []*Device
	calls   []call
}

// NewRound prepares f. A round runs from one goroutine at a time.
func (m *Machine) NewRound(f func(d *Device) error) *Round {
	r := &Round{devices: m.Devices}
	for _, d := range m.Devices {
		r.calls = append(r.calls, call{func() error { return f(d) }, make(chan error, 1)})
	}
	return r
}

// Run runs the function on every device, each on its own thread, and joins the errors.
func (r *Round) Run() error {
	for i, d := range r.devices {
		d.send(r.calls[i])
	}
	var failed error
	for i := range r.calls {
		if err := <-r.calls[i].done; err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
