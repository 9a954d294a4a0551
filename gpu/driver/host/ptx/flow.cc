// Where the lanes that a branch parts meet again: at the branch's immediate post-dominator, the first place that every way from
// it to the end passes, unless nothing is left to do there. Post-dominators by the algorithm of Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm".
#include <algorithm>

#include "host/ptx/body.h"

namespace host::ptx {

namespace {

bool always(const Instruction& i) { return i.guard == 0 && i.flip == 0; }
bool leaves(const Instruction& i) {
  return i.flow == Flow::branch || i.flow == Flow::table || i.flow == Flow::exit || i.flow == Flow::trap;
}

bool ends(const Instruction& i) { return i.flow == Flow::exit && always(i); }

// The graph of a program's basic blocks; the last node is the end of all lanes.
struct Graph {
  std::vector<uint32_t> begin;     // first instruction of each block
  std::vector<uint32_t> block_of;  // by instruction
  std::vector<std::vector<uint32_t>> next, previous;
  uint32_t end;

  explicit Graph(const Program& p) {
    std::vector<bool> leader(p.code.size() + 1);
    leader[0] = true;
    for (uint32_t n = 0; n < p.code.size(); n++) {
      const Instruction& i = p.code[n];
      if (!leaves(i)) continue;
      leader[n + 1] = true;
      if (i.flow == Flow::branch) leader[i.target] = true;
      for (uint32_t t = 0; i.flow == Flow::table && t < i.target; t++) leader[p.operands[i.more + t]] = true;
    }
    block_of.resize(p.code.size());
    for (uint32_t n = 0; n < p.code.size(); n++) {
      if (leader[n]) begin.push_back(n);
      block_of[n] = static_cast<uint32_t>(begin.size() - 1);
    }
    end = static_cast<uint32_t>(begin.size());
    next.resize(end + 1);
    previous.resize(end + 1);
    for (uint32_t b = 0; b < end; b++) {
      const uint32_t last = (b + 1 < end ? begin[b + 1] : static_cast<uint32_t>(p.code.size())) - 1;
      const Instruction& i = p.code[last];
      if (i.flow == Flow::branch) edge(b, block_of[i.target]);
      for (uint32_t t = 0; i.flow == Flow::table && t < i.target; t++) edge(b, block_of[p.operands[i.more + t]]);
      if (i.flow == Flow::exit || i.flow == Flow::trap) edge(b, end);
      if (!leaves(i) || !always(i)) edge(b, b + 1);
    }
  }
  void edge(uint32_t from, uint32_t to) {
    if (std::find(next[from].begin(), next[from].end(), to) != next[from].end()) return;
    next[from].push_back(to);
    previous[to].push_back(from);
  }
};

// The immediate post-dominator of each block; kNowhere for blocks from which nothing ends.
std::vector<uint32_t> post_dominators(const Graph& g) {
  // Blocks in post-order of the reversed graph, from the end.
  std::vector<uint32_t> order, number(g.end + 1, kNowhere), at(g.end + 1, 0), stack{g.end};
  std::vector<bool> seen(g.end + 1);
  seen[g.end] = true;
  while (!stack.empty()) {
    const uint32_t b = stack.back();
    if (at[b] < g.previous[b].size()) {
      const uint32_t p = g.previous[b][at[b]++];
      if (!seen[p]) {
        seen[p] = true;
        stack.push_back(p);
      }
      continue;
    }
    number[b] = static_cast<uint32_t>(order.size());
    order.push_back(b);
    stack.pop_back();
  }
  std::vector<uint32_t> above(g.end + 1, kNowhere);
  above[g.end] = g.end;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t n = order.size() - 1; n-- > 0;) {
      const uint32_t b = order[n];
      uint32_t found = kNowhere;
      for (uint32_t s : g.next[b]) {
        if (above[s] == kNowhere) continue;
        if (found == kNowhere) {
          found = s;
          continue;
        }
        uint32_t f = found;
        while (f != s) {
          while (number[f] < number[s]) f = above[f];
          while (number[s] < number[f]) s = above[s];
        }
        found = f;
      }
      if (found != above[b]) {
        above[b] = found;
        changed = true;
      }
    }
  }
  return above;
}

}  // namespace

void find_meetings(Program& p) {
  const Graph g(p);
  const std::vector<uint32_t> above = post_dominators(g);
  std::vector<bool> meets(p.code.size());
  for (uint32_t n = 0; n < p.code.size(); n++) {
    Instruction& i = p.code[n];
    if (i.flow != Flow::table && (i.flow != Flow::branch || always(i))) continue;
    const uint32_t block = above[g.block_of[n]];
    i.meet = block == kNowhere || block == g.end || ends(p.code[g.begin[block]]) ? kNowhere : g.begin[block];
    if (i.meet != kNowhere) meets[i.meet] = true;
  }
  // The new place of each instruction: behind the meeting that stands before it; jumps go to the meeting.
  std::vector<uint32_t> place(p.code.size());
  std::vector<Instruction> code;
  for (uint32_t n = 0; n < p.code.size(); n++) {
    place[n] = static_cast<uint32_t>(code.size());
    if (meets[n]) {
      Instruction meet;
      meet.flow = Flow::meet;
      meet.line = p.code[n].line;
      meet.cls = Class::control;
      code.push_back(meet);
    }
    code.push_back(p.code[n]);
  }
  for (Instruction& i : code) {
    if (i.flow == Flow::branch) i.target = place[i.target];
    for (uint32_t t = 0; i.flow == Flow::table && t < i.target; t++) {
      uint32_t& target = p.operands[i.more + t];
      target = place[target];
    }
    if (i.flow == Flow::branch || i.flow == Flow::table)
      i.meet = i.meet == kNowhere || i.meet >= place.size() ? kNowhere : place[i.meet];
  }
  for (SourceLine& s : p.source)
    s.instruction = s.instruction < place.size() ? place[s.instruction] : static_cast<uint32_t>(code.size());
  p.code = std::move(code);
}

}  // namespace host::ptx
