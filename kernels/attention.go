package kernels

import "ddgpu/gpu"

// Attention is the shape of softmax attention. Queries, keys, values and outputs are rows [N][L][Heads·Dim], head h in channels h·Dim and
// following; Scale multiplies the scores, Dim^−½ as a rule.
type Attention struct {
	N, L, Heads, Dim int
	Scale            float64
}

// attentionKernels are the entries for head sizes up to dim.
type attentionKernels struct {
	dim                      int
	forward, query, keyValue declaration
}

var attentionSizes = []attentionKernels{
	declareAttention(32, "32"),
	declareAttention(64, "64"),
	declareAttention(128, "128"),
	declareAttention(256, "256"),
}

// MaxHeadDim is the largest head size of [Queue.AttentionForward].
const MaxHeadDim = 256

func declareAttention(dim int, suffix string) attentionKernels {
	return attentionKernels{
		dim,
		declare("attention_forward_"+suffix, "pppppiiir"),
		declare("attention_backward_query_"+suffix, "ppppppppiiir"),
		declare("attention_backward_key_value_"+suffix, "ppppppppiiir"),
	}
}

// attentionFor picks the kernels by the head size alone.
func (q *Queue) attentionFor(g Attention) (attentionKernels, bool) {
	for _, k := range attentionSizes {
		if 0 < g.Dim && g.Dim <= k.dim {
			return k, true
		}
	}
	q.fail("attention with heads of %d channels: 1 to %d are possible", g.Dim, MaxHeadDim)
	return attentionKernels{}, false
}

func (q *Queue) launchAttention(k declaration, g Attention, args ...arg) {
	own, shared := int64(q.geometry(k)[1]), int(q.geometry(k)[2])
	grid := [3]int{g.N * g.Heads * int(blocks(int64(g.L), own)), 1, 1}
	q.launch(k, grid, shared, append(args, i32(g.L), i32(g.Heads), i32(g.Dim), realArg(g.Scale))...)
}

// AttentionForward computes y_i = Σ_j p_ij·v_j, p_ij = exp(s_ij − lse_i), s_ij = Scale·q_i·k_j, for each head of each image, and
// lse [N][Heads][L], lse_i = log Σ_j exp(s_ij), which the backward pass reads.
func (q *Queue) AttentionForward(g Attention, y, lse, queries, keys, values gpu.Ptr) {
	if k, ok := q.attentionFor(g); ok {
		q.launchAttention(k.forward, g, ptr(y), ptr(lse), ptr(queries), ptr(keys), ptr(values))
	}
}

// AttentionBackward computes, with δ_i = dy_i·y_i, which it leaves in delta [N][Heads][L], and ds_ij = p_ij·(dy_i·v_j − δ_i)·Scale:
// dq_i = Σ_j ds_ij·k_j, dk_j = Σ_i ds_ij·q_i, dv_j = Σ_i p_ij·dy_i.
func (q *Queue) AttentionBackward(g Attention, dq, dk, dv, delta, dy, y, lse, queries, keys, values gpu.Ptr) {
	k, ok := q.attentionFor(g)
	if !ok {
		return
	}
	q.launchAttention(k.query, g, ptr(dq), ptr(delta), ptr(dy), ptr(y), ptr(lse), ptr(queries), ptr(keys), ptr(values))
	q.launchAttention(k.keyValue, g, ptr(dk), ptr(dv), ptr(dy), ptr(lse), ptr(delta), ptr(queries), ptr(keys), ptr(values))
}
