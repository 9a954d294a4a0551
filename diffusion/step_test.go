package diffusion

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

// trainAhead is train with the host as far ahead of the devices as it can be; nothing waits between the steps.
func trainAhead(t *testing.T, spec string, c Config) (o outcome) {
	t.Helper()
	onMachine(t, spec, func(m *gpu.Machine) {
		ctx := context.Background()
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		result := func() {
			r := must(trainer.Result())(t)
			o.losses = append(o.losses, r.Loss)
			if want := int64(len(o.losses)); r.Step != want || r.LearningRate != c.LearningRateAt(int(want)) {
				t.Errorf("result %d is of step %d with the learning rate %g", want, r.Step, r.LearningRate)
			}
		}
		for trainer.Steps() < int64(c.Train.Steps) {
			if trainer.Pending() == StepsAhead {
				result()
			}
			ok(t, trainer.Queue(ctx))
		}
		// What needs the weights waits for them by itself, and takes no result away.
		var err error
		_, o.hash, err = trainer.Save(t.TempDir(), 0)
		ok(t, err)
		o.val = must(trainer.Evaluate(ctx))(t)
		o.images = must(trainer.Sample(ctx, SampleRequest{N: 7, Seed: 3, Labels: []int32{0, 1, 2, 0, 1, 2, 0}}))(t)
		for trainer.Pending() > 0 {
			result()
		}
		ok(t, trainer.Close())
	})
	return o
}

// TestAheadIsTheSame: steps that are queued while others run have the bits of steps that are waited for one by one. A lazy device runs only
// what something waits for, so that a missing wait between the streams leaves its memory as it was.
func TestAheadIsTheSame(t *testing.T) {
	for _, v := range []struct {
		precision string
		micro     int
	}{{"fp32", 1}, {"fp32", 2}, {"bf16", 1}} {
		c := tiny()
		c.Precision, c.Train.MicroBatches = v.precision, v.micro
		want := train(t, "host:1", c, 0)
		for _, spec := range []string{"host:1", "host:1,lazy", "host:2", "host:2,lazy", "host:4", "host:4,lazy", "host:4,nopeers"} {
			if diff := same(want, trainAhead(t, spec, c)); diff != "" {
				t.Errorf("%s, %s, %d micro-batches: %s", spec, v.precision, v.micro, diff)
			}
		}
	}
}

// TestDivergenceAhead: a loss that is not finite is found with the number of its step, although another one is queued behind it, and no
// checkpoint of it is made.
func TestDivergenceAhead(t *testing.T) {
	c := tiny()
	c.Train.Steps, c.Optimizer.LearningRate, c.Optimizer.MaxGradNorm = 60, 0.999, 0
	c.Optimizer.Name, c.Optimizer.WeightDecay = "adamw", 1e30
	onMachine(t, "host:2", func(m *gpu.Machine) {
		images, heldOut := sets(c)
		var want *DivergedError
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		for want == nil {
			if _, err := trainer.Step(context.Background()); err != nil && !errors.As(err, &want) {
				t.Fatal(err)
			}
		}
		ok(t, trainer.Close())
		trainer = must(NewTrainer(m, c, images, heldOut))(t)
		for {
			ok(t, trainer.Queue(context.Background()))
			if trainer.Pending() < StepsAhead {
				continue
			}
			if trainer.Steps() == want.Step+1 {
				break
			}
			must(trainer.Result())(t)
		}
		var got *DivergedError
		if _, _, err := trainer.Save(t.TempDir(), 0); !errors.As(err, &got) || got.Step != want.Step {
			t.Errorf("saving a run whose step %d diverged: %v", want.Step, err)
		}
		if r, err := trainer.Result(); !errors.As(err, &got) || got.Step != want.Step || got.What != want.What || r.Step != want.Step {
			t.Errorf("step %d diverged: %v of step %d", want.Step, err, r.Step)
		}
		ok(t, trainer.Close())
	})
}

// TestFaultAhead: a kernel that fails while the host is ahead is an error of the steps under way, with its cause, and Close ends.
func TestFaultAhead(t *testing.T) {
	for _, spec := range []string{"host,fault=launch:1200", "host:2,fault=launch:2000", "host:2,fault=copy:400", "host:2,fault=lost:3000"} {
		m := must(gpu.Open(spec))(t)
		images, heldOut := sets(tiny())
		trainer := must(NewTrainer(m, tiny(), images, heldOut))(t)
		var err error
		for err == nil && trainer.Steps() < 40 {
			if err = trainer.Queue(context.Background()); err == nil && trainer.Pending() == StepsAhead {
				_, err = trainer.Result()
			}
		}
		var fault *gpu.Error
		if !errors.As(err, &fault) || !strings.HasPrefix(err.Error(), "step ") || trainer.Steps() < 2 {
			t.Errorf("%s: %v after step %d", spec, err, trainer.Steps())
		}
		_ = trainer.Close() // the device's error again
		_ = m.Close()
	}
}

// TestRestoreAhead: a checkpoint can be restored while steps are under way; they leave nothing behind.
func TestRestoreAhead(t *testing.T) {
	c, dir := tiny(), t.TempDir()
	onMachine(t, "host:2,lazy", func(m *gpu.Machine) {
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		must(trainer.Step(context.Background()))(t)
		path, want, err := trainer.Save(dir, 0)
		ok(t, err)
		next := must(trainer.Step(context.Background()))(t)
		for range StepsAhead {
			ok(t, trainer.Queue(context.Background()))
		}
		ok(t, trainer.Restore(path))
		if trainer.Steps() != 1 || trainer.Pending() != 0 {
			t.Errorf("step %d, %d pending", trainer.Steps(), trainer.Pending())
		}
		if _, got, err := trainer.Save(t.TempDir(), 0); err != nil || got != want {
			t.Errorf("another checkpoint after a restore: %v", err)
		}
		if again := must(trainer.Step(context.Background()))(t); again != next {
			t.Errorf("step 2 is %+v, and after a restore %+v", next, again)
		}
		ok(t, trainer.Close())
	})
}

func TestTooManyPending(t *testing.T) {
	onMachine(t, "host", func(m *gpu.Machine) {
		images, heldOut := sets(tiny())
		trainer := must(NewTrainer(m, tiny(), images, heldOut))(t)
		if _, err := trainer.Result(); err == nil {
			t.Error("the result of no step")
		}
		for range StepsAhead {
			ok(t, trainer.Queue(context.Background()))
		}
		if err := trainer.Queue(context.Background()); err == nil {
			t.Error("a slot in use was given to another step")
		}
		if _, err := trainer.Step(context.Background()); err == nil {
			t.Error("the results of pending steps are lost")
		}
		ok(t, trainer.Close())
	})
}

// TestSteadyState: steps, and sampling, allocate no memory of the device and next to none of Go's.
func TestSteadyState(t *testing.T) {
	for _, spec := range []string{"host:1", "host:2"} {
		onMachine(t, spec, func(m *gpu.Machine) {
			ctx := context.Background()
			c := tiny()
			images, heldOut := sets(c)
			before := driver.Allocations()
			trainer := must(NewTrainer(m, c, images, heldOut))(t)
			step := func() {
				if err := trainer.Queue(ctx); err != nil {
					t.Error(err)
				}
				if trainer.Pending() == StepsAhead {
					if _, err := trainer.Result(); err != nil {
						t.Error(err)
					}
				}
			}
			step()
			start := driver.Allocations()
			if start == before {
				t.Fatal("allocations are not counted")
			}
			if garbage := testing.AllocsPerRun(50, step); garbage > float64(2*len(m.Devices)) { // the grid and block of one launch
				t.Errorf("%s: a step allocates %g times on Go's heap", spec, garbage)
			}
			must(trainer.Evaluate(ctx))(t)
			must(trainer.Sample(ctx, SampleRequest{N: 40, Labels: make([]int32, 40)}))(t)
			if n := driver.Allocations() - start; n > 0 {
				t.Errorf("%s: %d allocations on the device after the first step", spec, n)
			}
			ok(t, trainer.Close())
		})
	}
}

// TestProgressIsTrue: a sampling step that is reported as done has run, although later ones are queued behind it.
func TestProgressIsTrue(t *testing.T) {
	for _, steps := range []int{1, 3, drawAhead, 11} {
		c := tiny()
		c.Sampler.Steps = steps
		onMachine(t, "host,lazy", func(m *gpu.Machine) {
			model := must(NewModel(c))(t)
			g := must(NewGenerator(m, model, 4))(t)
			reported := 0
			must(g.Sample(context.Background(), SampleRequest{N: 4, Labels: make([]int32, 4), Progress: func(step, of int) {
				reported++
				done, err := g.drawers[0].ends[(step-1)%drawAhead].Done()
				if step != reported || of != steps || !done || err != nil {
					t.Errorf("report %d: step %d of %d, done: %v, %v", reported, step, of, done, err)
				}
			}}))(t)
			if reported != steps {
				t.Errorf("%d of %d steps were reported", reported, steps)
			}
			ok(t, g.Close())
		})
	}
}

// BenchmarkLaunchPath measures what a training step costs the host besides the kernels: a lazy device runs nothing while a step is queued.
// The network is the quickstart's at batch 32.
func BenchmarkLaunchPath(b *testing.B) {
	m, err := gpu.Open("host,lazy")
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	c := quickstart()
	t, err := NewTrainer(m, c, noisy{c.imageShape()}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var launch, all time.Duration
	for b.Loop() {
		start := time.Now()
		if err := t.Queue(context.Background()); err != nil {
			b.Fatal(err)
		}
		queued := time.Now()
		if err := t.settle(); err != nil {
			b.Fatal(err)
		}
		ended := time.Now()
		if _, err := t.Result(); err != nil {
			b.Fatal(err)
		}
		launch += queued.Sub(start) + time.Since(ended)
		all += time.Since(start)
	}
	b.ReportMetric(launch.Seconds()*1e6/float64(b.N), "us-launch/step")
	b.ReportMetric(100*launch.Seconds()/all.Seconds(), "%-of-step")
	if err := t.Close(); err != nil {
		b.Fatal(err)
	}
}
