package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ddgpu/diffusion"
	"ddgpu/diffusion/checkpoint"
	"ddgpu/diffusion/data"
	"ddgpu/gpu"
)

// session is one training from its start, or from a checkpoint, to its end or interruption.
type session struct {
	config  diffusion.Config
	folder  *runFolder
	show    progress
	machine *gpu.Machine
	alive   func(doing string) // a sign of life, and what comes next

	trainer  *diffusion.Trainer
	metrics  *metricsFile
	heldOut  bool
	memory   int64  // in use on a device, bytes
	saved    int64  // step of the newest checkpoint, −1 before the first
	path     string // of that checkpoint
	hash     string
	grid     string // the newest grid of samples
	lastLoss *float64
	since    time.Time // when the last step ended, or the first of those that are pending was queued
}

func (s *session) open(train, heldOut data.Dataset, from string) (err error) {
	s.alive("preparing the devices")
	s.saved, s.heldOut = -1, heldOut != nil && heldOut.Len() > 0
	if s.trainer, err = diffusion.NewTrainer(s.machine, s.config, train, heldOut); err != nil {
		return err
	}
	if from != "" {
		if err := s.trainer.Restore(from); err != nil {
			return s.withEarlier(from, err)
		}
		s.show.Note("resumed", fields{"step": s.trainer.Steps(), "checkpoint": from})
		if c, err := checkpoint.Open(from); err == nil && from == s.newest() {
			s.saved, s.path, s.hash = s.trainer.Steps(), from, c.Manifest.Hash
		}
	}
	text, err := configYAML(s.config)
	if err != nil {
		return err
	}
	err = writeFile(s.folder.Config(), func(w io.Writer) error { _, err := w.Write(text); return err })
	if err != nil {
		return err
	}
	if s.metrics, err = openMetrics(s.folder.Metrics(), s.trainer.Steps()); err != nil {
		return err
	}
	s.memory = machineMemory(s.machine)
	return nil
}

// withEarlier adds to the error of a checkpoint that cannot be used which other one of the run could.
func (s *session) withEarlier(from string, err error) error {
	all, listErr := checkpoint.List(s.folder.Checkpoints())
	if !is[*checkpoint.Error](err) || listErr != nil {
		return err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if !sameFile(all[i].Path, from) {
			return fmt.Errorf("%w; the run also has --resume %s", err, all[i].Path)
		}
	}
	return err
}

// newest is the run's newest checkpoint, "" if there is none.
func (s *session) newest() string {
	e, _, err := checkpoint.Latest(s.folder.Checkpoints())
	if err != nil {
		return ""
	}
	return e.Path
}

func (s *session) close() error {
	var err error
	if s.metrics != nil {
		err = s.metrics.Close()
	}
	if s.trainer != nil {
		err = join(err, s.trainer.Close())
	}
	return join(err, s.machine.Close())
}

// run makes the steps that are left, and after each what is due: validation, samples, a checkpoint.
func (s *session) run(ctx context.Context) error {
	last := int64(s.config.Train.Steps)
	if s.owesGrid() {
		if err := s.sample(ctx, s.trainer.Steps()); err != nil && ctx.Err() == nil {
			return err
		}
	}
	for s.trainer.Steps() < last && ctx.Err() == nil {
		if s.trainer.Pending() == 0 {
			s.since = time.Now()
			s.alive(fmt.Sprintf("step %d runs", s.trainer.Steps()+1))
		}
		err := s.trainer.Queue(ctx)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			break
		}
		if err != nil {
			if older := s.results(ctx, 0, last); older != nil {
				return older // the cause, where both have failed
			}
			return join(err, s.drawCurve())
		}
		most := diffusion.StepsAhead - 1
		if s.pauses(s.trainer.Steps(), last) {
			most = 0
		}
		if err := s.results(ctx, most, last); err != nil {
			return err
		}
	}
	if err := s.results(ctx, 0, last); err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	if s.trainer.Steps() < last || s.owesGrid() {
		return &preemptedError{s.trainer.Steps(), s.path}
	}
	return s.report()
}

// results waits for steps until at most so many are pending, and does what is due after each. The devices compute the next one meanwhile.
func (s *session) results(ctx context.Context, most int, last int64) error {
	for s.trainer.Pending() > most {
		s.alive(fmt.Sprintf("step %d runs", s.trainer.Steps()-int64(s.trainer.Pending())+1))
		r, err := s.trainer.Result()
		if err != nil {
			return join(err, s.drawCurve())
		}
		now := time.Now()
		m := metric{Step: r.Step, Loss: r.Loss, GradNorm: r.GradNorm, LR: r.LearningRate,
			ImagesPerSecond: float64(s.config.Train.Batch) / now.Sub(s.since).Seconds()}
		s.since = now
		if err := s.after(ctx, m, last); err != nil {
			return err
		}
	}
	return nil
}

// pauses says whether something is due after a step that needs the weights as they are then.
func (s *session) pauses(step, last int64) bool {
	t := s.config.Train
	return s.heldOut && due(step, t.EvalEvery, last) || due(step, t.SampleEvery, last) || due(step, t.SaveEvery, 0)
}

// owesGrid says whether samples are due at this step and are not there: an interruption can fall between a step and its samples.
func (s *session) owesGrid() bool {
	step := s.trainer.Steps()
	return step > 0 && due(step, s.config.Train.SampleEvery, int64(s.config.Train.Steps)) && !exists(s.folder.SampleGrid(step))
}

// after does what is due after a step. A cancelled validation is left out; cancelled samples are drawn when the run goes on.
func (s *session) after(ctx context.Context, m metric, last int64) error {
	t := s.config.Train
	if s.heldOut && due(m.Step, t.EvalEvery, last) {
		s.alive("the validation runs")
		loss, err := s.trainer.Evaluate(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			m.ValLoss, s.lastLoss = &loss, &loss
		}
	}
	if err := s.metrics.Append(m); err != nil {
		return err
	}
	s.show.Step(m, s.memory)
	if m.ValLoss != nil {
		s.show.Note("validated", fields{"step": m.Step, "val_loss": *m.ValLoss})
	}
	if due(m.Step, t.SampleEvery, last) && ctx.Err() == nil {
		if err := s.sample(ctx, m.Step); err != nil && ctx.Err() == nil {
			return err
		}
	}
	if due(m.Step, t.SaveEvery, 0) {
		return s.save()
	}
	return nil
}

// due says whether something that happens every so many steps, and after the last, happens after this one.
func due(step int64, every int, last int64) bool {
	return every > 0 && (step%int64(every) == 0 || step == last)
}

// sampleSeed is the seed of the noise that every grid of a run starts from.
const sampleSeed = 0

func (s *session) sample(ctx context.Context, step int64) error {
	n := s.config.Train.Samples
	images, err := s.trainer.Sample(ctx, diffusion.SampleRequest{N: n, Seed: sampleSeed, Labels: roundRobin(s.config, 0, n),
		Progress: func(i, of int) { s.alive(fmt.Sprintf("sampling step %d of %d runs", i+1, of)) }})
	if err != nil {
		return err
	}
	path := s.folder.SampleGrid(step)
	if err := writeGrid(path, picturesOf(s.config, images)); err != nil {
		return err
	}
	s.grid = path
	s.show.Note("sampled", fields{"step": step, "grid": path})
	return nil
}

// save writes a checkpoint, unless the newest is of this step. The metrics up to it are on the disk first.
func (s *session) save() (err error) {
	if s.saved == s.trainer.Steps() {
		return s.drawCurve()
	}
	s.alive("a checkpoint is written")
	if err := s.metrics.Sync(); err != nil {
		return fmt.Errorf("writing metrics: %w", err)
	}
	if s.path, s.hash, err = s.trainer.Save(s.folder.Checkpoints(), s.config.Train.Keep); err != nil {
		return err
	}
	s.saved = s.trainer.Steps()
	s.show.Note("saved", fields{"step": s.saved, "checkpoint": s.path})
	return s.drawCurve()
}

func (s *session) drawCurve() error {
	return writeLossCurve(s.folder.LossCurve(), s.config.Name, s.metrics.points)
}

// report says at the end what came out and where it lies.
func (s *session) report() error {
	for _, m := range s.metrics.points {
		if m.ValLoss != nil {
			s.lastLoss = m.ValLoss // of the newest validation, also of one before a resume
		}
	}
	return s.show.Report(summary{Run: s.folder.path, Steps: s.trainer.Steps(), ValLoss: s.lastLoss, Samples: s.grid, LossCurve: s.folder.LossCurve(),
		Checkpoint: s.path, Hash: s.hash})
}
