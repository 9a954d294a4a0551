package main

import (
	"regexp"
	"strconv"
	"strings"
)

// A class is what an instruction occupies.
type class int

const (
	tensor   class = iota // matrix multiply-accumulate
	fp32                  // float32 arithmetic
	special               // exp2, rsqrt, conversions: the special-function unit
	sharedIO              // LDS, LDSM, STS
	async                 // LDGSTS: global to shared memory
	globalIO              // LDG, STG
	local                 // LDL, STL: spills
	integer               // addresses, indices, predicates, moves; the uniform datapath's too
	control               // branches and convergence
	barrier               // BAR, and waits for asynchronous copies
	classes
)

var classOf = map[string]class{
	"HMMA": tensor, "IMMA": tensor, "DMMA": tensor,
	"FFMA": fp32, "FMUL": fp32, "FADD": fp32, "FMNMX": fp32, "FSEL": fp32, "FSETP": fp32, "FSET": fp32, "FCHK": fp32, "FSWZADD": fp32,
	"MUFU": special, "F2F": special, "F2I": special, "I2F": special, "FRND": special, "F2FP": special,
	"LDS": sharedIO, "LDSM": sharedIO, "STS": sharedIO, "ATOMS": sharedIO,
	"LDGSTS": async,
	"LDG":    globalIO, "STG": globalIO, "LD": globalIO, "ST": globalIO,
	"LDL": local, "STL": local,
	"BRA": control, "BSSY": control, "BSYNC": control, "EXIT": control, "RET": control, "CALL": control, "WARPSYNC": control, "NOP": control,
	"JMP": control, "BREAK": control, "YIELD": control, "BMOV": control, "KILL": control, "NANOSLEEP": control,
	"BAR": barrier, "DEPBAR": barrier, "LDGDEPBAR": barrier, "MEMBAR": barrier, "ERRBAR": barrier,
}

// A mix is what the instructions of a stretch of code are, once through, for one warp.
type mix struct {
	Total int
	Count [classes]int
	// Products counts matrix instructions by their multiply-adds and inputs.
	Products map[product]int
	FFMA     int // of fp32
	LDSM     int // of sharedIO
	MUFU     int // of special
	// Bytes that the 32 lanes move: through shared memory, from and to global memory.
	Shared, Loaded, Stored int
	Cached                 int // of Loaded: LDGSTS through the first-level cache, for what is soon read again
}

// A product is one kind of matrix instruction.
type product struct {
	macs int  // multiply-adds
	tf32 bool // inputs of 19 bits, at half the rate of 16
}

var productShape = regexp.MustCompile(`^HMMA\.(\d+)\.`)

// productMACs are the multiply-adds of a shape m·n·k as opcodes name it.
var productMACs = map[string]int{"16816": 16 * 8 * 16, "1688": 16 * 8 * 8, "1684": 16 * 8 * 4}

func (m *mix) add(code []instruction) {
	for _, i := range code {
		base := i.base()
		c, known := classOf[base]
		if !known {
			c = integer
		}
		m.Total++
		m.Count[c]++
		if i.Never {
			continue
		}
		bytes := 32 * width(i.Opcode)
		switch base {
		case "FFMA":
			m.FFMA++
		case "MUFU":
			m.MUFU++
		case "LDS", "STS", "ATOMS":
			m.Shared += bytes
		case "LDSM":
			m.LDSM++
			m.Shared += matrices(i.Opcode) * 8 * 16
		case "LDGSTS":
			m.Shared += bytes
			m.Loaded += bytes
			if !strings.Contains(i.Opcode, ".BYPASS") {
				m.Cached += bytes
			}
		case "LDG", "LD":
			m.Loaded += bytes
		case "STG", "ST":
			m.Stored += bytes
		case "HMMA":
			if s := productShape.FindStringSubmatch(i.Opcode); s != nil {
				if m.Products == nil {
					m.Products = map[product]int{}
				}
				m.Products[product{productMACs[s[1]], strings.Contains(i.Opcode, ".TF32")}]++
			}
		}
	}
}

// flops is the arithmetic of a warp: two for each multiply-add.
func (m mix) flops() float64 {
	n := 2 * 32 * float64(m.FFMA)
	for p, count := range m.Products {
		n += 2 * float64(p.macs) * float64(count)
	}
	return n
}

// global is the bytes of global memory that a warp moves.
func (m mix) global() int { return m.Loaded + m.Stored }

// share is a class's part of the instructions.
func (m mix) share(c class) float64 {
	if m.Total == 0 {
		return 0
	}
	return float64(m.Count[c]) / float64(m.Total)
}

// width is the bytes that a lane moves.
func width(opcode string) int {
	for _, part := range strings.Split(opcode, ".") {
		switch part {
		case "U8", "S8":
			return 1
		case "U16", "S16":
			return 2
		case "64":
			return 8
		case "128":
			return 16
		}
	}
	return 4
}

// matrices is how many 8×8 matrices of 16 bits an LDSM loads: LDSM.16.M88.4.
func matrices(opcode string) int {
	n, err := strconv.Atoi(opcode[strings.LastIndexByte(opcode, '.')+1:])
	if err != nil {
		return 1
	}
	return n
}
