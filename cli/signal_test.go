package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// neverFinish makes a process of this test a training that never finishes its step.
const neverFinish = "DDGPU_TEST_NEVER_FINISH"

func trainForever() {
	ctx, release := interruptible(func() { fmt.Println("finishing the step") })
	defer release()
	fmt.Println("training")
	<-ctx.Done()
	time.Sleep(time.Hour)
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), neverFinish+"=1")
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		timeout := time.AfterFunc(30*time.Second, func() { _ = child.Process.Kill() })
		defer timeout.Stop()
		lines := bufio.NewScanner(out)
		for _, want := range []string{"training", "finishing the step"} {
			if !lines.Scan() || lines.Text() != want {
				t.Fatalf("%v: the child says %q, want %q", sig, lines.Text(), want)
			}
			if err := child.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		state := child.Wait().(*exec.ExitError).Sys().(syscall.WaitStatus)
		if !state.Signaled() || state.Signal() != sig {
			t.Errorf("after the second %v the child ended with %v, want that signal", sig, state)
		}
	}
}

func TestInterruptibleReleases(t *testing.T) {
	stopped := make(chan bool, 1)
	ctx, release := interruptible(func() { stopped <- true })
	release()
	<-ctx.Done()
	select {
	case <-stopped:
		t.Error("the end of a training counts as an interruption")
	case <-time.After(50 * time.Millisecond):
	}
}
