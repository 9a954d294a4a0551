// Package testkernels links kernels that break the rules of CUDA on purpose (wrong.cu), and small ones of tensor-core instructions,
// right and wrong (mma.cu), for tests of what the host device and the sanitizers find. They are built for the GPU's tiles in float32: open "host,tiles=gpu". No product imports it.
package testkernels

/*
#cgo LDFLAGS: -ltestkernels -lcuda -l:libstdc++.a -lm -lpthread -ldl
int ddgpu_testkernels(void);
*/
import "C"

import "strings"

// Keeps the archive in the program.
var _ = C.ddgpu_testkernels()

// PTX is a module that declares the named kernels, enough for the host device.
func PTX(names ...string) string {
	var b strings.Builder
	b.WriteString(".version 6.3\n.target sm_70\n.address_size 64\n")
	for _, name := range names {
		b.WriteString(".visible .entry " + name + "()\n{\nret;\n}\n")
	}
	return b.String()
}
