package diffusion

import (
	"context"
	"errors"
	"fmt"
	"math"

	"ddgpu/diffusion/data"
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// DivergedError is a loss or gradient that is not finite; the weights are spoilt, the last checkpoint is not.
type DivergedError struct {
	Step  int64
	What  string
	Value float64
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("training diverged: the %s of step %d is %v; start over with a lower learning rate or more warm-up", e.What, e.Step, e.Value)
}

// StepResult is what one step reports.
type StepResult struct {
	Step         int64   // counted from 1
	Loss         float64 // mean over the batch
	GradNorm     float64 // of all parameters, before clipping
	LearningRate float64
}

// diverged is a *DivergedError when a number of the result is not finite.
func (r *StepResult) diverged() error {
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	switch {
	case !finite(r.Loss):
		return &DivergedError{Step: r.Step, What: "loss", Value: r.Loss}
	case !finite(r.GradNorm):
		return &DivergedError{Step: r.Step, What: "gradient norm", Value: r.GradNorm}
	}
	return nil
}

// stepping is how a Trainer has its devices make steps. What the rounds read is set before they run.
type stepping struct {
	batch   data.Batch
	state   kernels.StepState
	slot    int // of every replica
	pending int // steps whose result has not been asked for

	start, sum, finish, wait, settle *gpu.Round
}

func (t *Trainer) buildSteps() {
	round := func(f func(r *replica) error) *gpu.Round {
		return t.machine.NewRound(func(d *gpu.Device) error { return f(t.replicas[d.Index]) })
	}
	s := &t.steps
	if len(t.replicas) == 1 {
		s.start = round(func(r *replica) error {
			if err := r.start(&r.slots[s.slot], s.batch, s.state); err != nil {
				return err
			}
			return r.finish(&r.slots[s.slot])
		})
	} else {
		// An event is recorded on all devices before any stream waits for it.
		s.start = round(func(r *replica) error {
			if err := r.start(&r.slots[s.slot], s.batch, s.state); err != nil {
				return err
			}
			return r.stream.Record(r.exchange.ready)
		})
		s.sum = round(t.sumSlice)
		s.finish = round(func(r *replica) error {
			if err := t.collectSlices(r); err != nil {
				return err
			}
			return r.finish(&r.slots[s.slot])
		})
	}
	s.wait = round(func(r *replica) error { return r.slots[s.slot].done.Sync() })
	s.settle = round((*replica).settle)
}

// Steps is how many updates the weights have had, those that are under way included.
func (t *Trainer) Steps() int64 { return t.step }

// Pending is how many steps have been queued whose result has not been asked for.
func (t *Trainer) Pending() int { return t.steps.pending }

// Queue starts one update and does not wait for it: the devices make it after those before it. At most [StepsAhead] can be pending. A cancelled
// context stops an update before it begins, never half-way.
func (t *Trainer) Queue(ctx context.Context) error {
	s := &t.steps
	if s.pending == StepsAhead {
		return fmt.Errorf("step %d: the results of %d steps have not been asked for", t.step+1, s.pending)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	if s.batch, err = t.loader.Next(ctx); err != nil {
		return err
	}
	s.state, s.slot = t.stepState(t.step+1), int(t.step%StepsAhead)
	for _, round := range [...]*gpu.Round{s.start, s.sum, s.finish} {
		if round == nil {
			continue
		}
		if err := round.Run(); err != nil {
			return fmt.Errorf("step %d: %w", t.step+1, err)
		}
	}
	t.rates[s.slot] = s.state.LearningRate
	t.step++
	s.pending++
	return nil
}

// Result waits for the oldest pending step. The error is a *DivergedError when its loss or its gradient is not finite.
func (t *Trainer) Result() (StepResult, error) {
	s := &t.steps
	if s.pending == 0 {
		return StepResult{}, errors.New("no step is pending")
	}
	k := t.step - int64(s.pending) + 1
	s.slot = int((k - 1) % StepsAhead)
	if err := s.wait.Run(); err != nil {
		return StepResult{}, fmt.Errorf("step %d: %w", k, err)
	}
	s.pending--
	result := t.resultOf(k)
	return result, result.diverged()
}

// resultOf reads the result of a step that has ended.
func (t *Trainer) resultOf(k int64) StepResult {
	slot := (k - 1) % StepsAhead
	r := t.replicas[0]
	loss, norm := r.result(&r.slots[slot])
	return StepResult{Step: k, Loss: loss / float64(t.config.Train.Batch), GradNorm: norm, LearningRate: t.rates[slot]}
}

// Step makes one update and waits for its result, which is that of Queue and Result.
func (t *Trainer) Step(ctx context.Context) (StepResult, error) {
	if t.steps.pending > 0 {
		return StepResult{}, fmt.Errorf("step %d: the results of %d steps have not been asked for", t.step+1, t.steps.pending)
	}
	if err := t.Queue(ctx); err != nil {
		return StepResult{}, err
	}
	return t.Result()
}

// settle waits until nothing is under way. The error is a *DivergedError when a pending step has diverged.
func (t *Trainer) settle() error {
	if err := t.steps.settle.Run(); err != nil {
		return fmt.Errorf("waiting for step %d: %w", t.step, err)
	}
	for k := t.step - int64(t.steps.pending) + 1; k <= t.step; k++ {
		r := t.resultOf(k)
		if err := r.diverged(); err != nil {
			return err
		}
	}
	return nil
}
