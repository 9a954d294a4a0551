package main

import "slices"

// A block is a run of instructions [first, end) that is entered at its start alone, with the blocks that may follow it.
type block struct {
	first, end int
	next       []int
}

// ends are the opcodes that nothing follows.
var ends = map[string]bool{"EXIT": true, "RET": true}

// blocksOf cuts a function at its labels and branches. The first block is where it begins.
func blocksOf(f function) []block {
	starts := []int{0}
	for i, c := range f.Code {
		if c.Target >= 0 {
			starts = append(starts, c.Target)
		}
		if c.Target >= 0 || ends[c.base()] {
			starts = append(starts, i+1)
		}
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	at := map[int]int{} // block by its first instruction
	var blocks []block
	for i, s := range starts {
		if s >= len(f.Code) {
			break
		}
		end := len(f.Code)
		if i+1 < len(starts) {
			end = min(end, starts[i+1])
		}
		at[s] = len(blocks)
		blocks = append(blocks, block{first: s, end: end})
	}
	for i := range blocks {
		b := &blocks[i]
		last := f.Code[b.end-1]
		if last.Target >= 0 {
			if n, ok := at[last.Target]; ok {
				b.next = append(b.next, n)
			}
		}
		// A branch whose first operand is not its label has a condition of its own: BRA P1, `(.L_x_1).
		falls := last.Guarded || last.base() == "CALL" || !ends[last.base()] && (last.Target < 0 || last.Args[0] != '`')
		if n, ok := at[b.end]; ok && falls {
			b.next = append(b.next, n)
		}
	}
	return blocks
}

// A loop is the blocks that lie between a block and a way back to it.
type loop struct {
	head   int
	blocks map[int]bool
}

// loopsOf finds the natural loops: for each edge to a block that every way to the edge passes (it dominates), the blocks from which that
// edge is reached without passing it again. Edges to the same block make one loop.
func loopsOf(blocks []block) []loop {
	order := depthFirst(blocks)
	before := make([][]int, len(blocks))
	for _, b := range order {
		for _, n := range blocks[b].next {
			before[n] = append(before[n], b)
		}
	}
	dominator := dominators(order, before)
	var loops []loop
	for _, head := range order {
		body := map[int]bool{head: true}
		var open []int
		for _, b := range before[head] {
			if dominates(dominator, head, b) {
				open = append(open, b)
			}
		}
		if len(open) == 0 {
			continue
		}
		for len(open) > 0 {
			b := open[len(open)-1]
			open = open[:len(open)-1]
			if !body[b] {
				body[b] = true
				open = append(open, before[b]...)
			}
		}
		loops = append(loops, loop{head, body})
	}
	return loops
}

// depthFirst lists the blocks that can be reached, each before those that only come after it.
func depthFirst(blocks []block) (order []int) {
	seen := make([]bool, len(blocks))
	type visit struct{ block, next int }
	stack := []visit{{0, 0}}
	seen[0] = true
	for len(stack) > 0 {
		v := &stack[len(stack)-1]
		if v.next < len(blocks[v.block].next) {
			n := blocks[v.block].next[v.next]
			v.next++
			if !seen[n] {
				seen[n] = true
				stack = append(stack, visit{n, 0})
			}
			continue
		}
		order = append(order, v.block)
		stack = stack[:len(stack)-1]
	}
	slices.Reverse(order)
	return order
}

// dominators gives each block's immediate dominator, by Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm".
func dominators(order []int, before [][]int) map[int]int {
	number := map[int]int{}
	for i, b := range order {
		number[b] = i
	}
	dominator := map[int]int{0: 0}
	for changed := true; changed; {
		changed = false
		for _, b := range order[1:] {
			found := -1
			for _, p := range before[b] {
				switch _, known := dominator[p]; {
				case !known:
				case found < 0:
					found = p
				default:
					found = common(dominator, number, found, p)
				}
			}
			if was, known := dominator[b]; !known || was != found {
				dominator[b] = found
				changed = true
			}
		}
	}
	return dominator
}

// common is the last block that every way to a and every way to b passes.
func common(dominator, number map[int]int, a, b int) int {
	for a != b {
		for number[a] > number[b] {
			a = dominator[a]
		}
		for number[b] > number[a] {
			b = dominator[b]
		}
	}
	return a
}

func dominates(dominator map[int]int, a, b int) bool {
	for b != a && b != 0 {
		b = dominator[b]
	}
	return b == a
}

// own says whether a block of a loop belongs to no smaller loop within it.
func (l loop) own(block int, loops []loop) bool {
	for _, other := range loops {
		if other.head != l.head && l.blocks[other.head] && other.blocks[block] {
			return false
		}
	}
	return true
}

// often is how often a loop is taken to run for each time that the loop around it does, as compilers guess where they know nothing.
const often = 8

// mainLoop gives the mix of a function's main loop, and of what a warp runs outside of it at least: the fewest instructions that lead from the
// start through the loop to an end. The main loop is the loop that computes the most by itself,
// without the loops within it, of those whose inner loops do not compute more; where none computes, the one that moves the most bytes of
// global memory, then the one with the most instructions. Loops within it count once. Of a function without loops, all is outside.
func mainLoop(f function) (body, outside mix) {
	blocks := blocksOf(f)
	loops := loopsOf(blocks)
	does := make([]work, len(loops))
	for i, l := range loops {
		var m mix
		for b := range l.blocks {
			if l.own(b, loops) {
				m.add(f.Code[blocks[b].first:blocks[b].end])
			}
		}
		does[i] = work{m.flops(), float64(m.global()), float64(m.Total)}
	}
	best := -1
	for i, l := range loops {
		outdone := false
		for j, within := range loops {
			w := does[j]
			if i != j && l.blocks[within.head] && (w.flops > 0 || w.bytes > 0) {
				outdone = outdone || work{often * w.flops, often * w.bytes, often * w.instructions}.more(does[i])
			}
		}
		if !outdone && (best < 0 || does[i].more(does[best])) {
			best = i
		}
	}
	var within []int
	if best >= 0 {
		for b := range loops[best].blocks {
			within = append(within, b)
			body.add(f.Code[blocks[b].first:blocks[b].end])
		}
	}
	around := depthFirst(blocks)
	if best >= 0 {
		around = shortest(blocks, []int{0}, func(b int) bool { return loops[best].blocks[b] })
		around = append(around, shortest(blocks, within, func(b int) bool { return len(blocks[b].next) == 0 })...)
	}
	for _, b := range around {
		if best < 0 || !loops[best].blocks[b] {
			outside.add(f.Code[blocks[b].first:blocks[b].end])
		}
	}
	return body, outside
}

// shortest is the way with the fewest instructions from one of some blocks to one that `at` accepts, both ends included (Dijkstra).
func shortest(blocks []block, from []int, at func(b int) bool) []int {
	far := map[int]int{} // instructions up to a block's end
	before := map[int]int{}
	done := map[int]bool{}
	for _, b := range from {
		far[b], before[b] = 0, -1
	}
	for {
		next := -1
		for b, d := range far {
			if !done[b] && (next < 0 || d < far[next] || d == far[next] && b < next) {
				next = b
			}
		}
		if next < 0 {
			return nil
		}
		if at(next) {
			var way []int
			for b := next; b >= 0; b = before[b] {
				way = append(way, b)
			}
			return way
		}
		done[next] = true
		for _, n := range blocks[next].next {
			d := far[next] + blocks[n].end - blocks[n].first
			if was, known := far[n]; !known || d < was {
				far[n], before[n] = d, next
			}
		}
	}
}

// work is what a loop does by itself, once through.
type work struct{ flops, bytes, instructions float64 }

func (w work) more(o work) bool {
	switch {
	case w.flops != o.flops:
		return w.flops > o.flops
	case w.bytes != o.bytes:
		return w.bytes > o.bytes
	}
	return w.instructions > o.instructions
}
