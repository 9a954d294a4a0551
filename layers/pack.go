package layers

import "sort"

// memoryAlign is what offsets within a plan's memory are multiples of, in bytes.
const memoryAlign = 256

// pack gives every storage its offset.
func (p *planner) pack() {
	for i, s := range p.storages {
		if s.workspace {
			p.scratch = append(p.scratch, slot(i))
		} else {
			p.activations = append(p.activations, slot(i))
		}
	}
	p.Activations = p.packAll(p.activations)
	p.Workspace = p.packAll(p.scratch)
}

// packAll places storages, the largest first, each at the lowest offset where no storage lies that is in use at the same time, in the gap
// that fits best; it returns the end.
func (p *planner) packAll(slots []slot) int64 {
	order := append([]slot(nil), slots...)
	sort.SliceStable(order, func(i, j int) bool { return p.storages[order[i]].bytes > p.storages[order[j]].bytes })
	var placed []*storage // by offset
	end := int64(0)
	for _, s := range order {
		t := &p.storages[s]
		size := roundUp(t.bytes, memoryAlign)
		if p.Options.NoOverlap {
			t.offset = end
			end += size
			continue
		}
		best, bestGap, free := int64(-1), int64(0), int64(0)
		for _, other := range placed {
			if other.last < t.first || t.last < other.first {
				continue
			}
			if gap := other.offset - free; gap >= size && (best < 0 || gap < bestGap) {
				best, bestGap = free, gap
			}
			free = max(free, other.offset+roundUp(other.bytes, memoryAlign))
		}
		if best < 0 {
			best = free
		}
		t.offset = best
		end = max(end, best+size)
		at := sort.Search(len(placed), func(i int) bool { return placed[i].offset > t.offset })
		placed = append(placed, nil)
		copy(placed[at+1:], placed[at:])
		placed[at] = t
	}
	return end
}
