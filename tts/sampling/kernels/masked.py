"""A pass of masked decoding in two launches: a code for each masked cell, then which of them are kept.

    scores [2B, T, V] ─► draw_cells, a program for each (item, frame) ─► said, confidence, score [B, T]
    score [B, T] ─► keep_cells, a program for each item ─► codes and masks after the pass

Defined by `draw` of tts/decoding/masked.py and `ByConfidence` of tts/decoding/commit.py. Noise is made where it is used: one
uniform for the code and one for the confidence of a cell, never a table of T x V.
"""

import triton
import triton.language as tl

from tts.sampling.kernels.rows import COMMIT, MASKED, guided_row, largest, softmax, uniform


@triton.jit
def draw_cells(
    logits,  # [B or 2B, T, V] conditional rows first
    codes,  # [B, T] int64, rows of this stride
    codes_item,
    masked,  # [B, T] bool
    seeds,  # [B] int64
    steps,  # [B] int64, the pass that each item is at
    left,  # [B] float32, the part of its passes that is left
    temperatures,  # [B] float32, 0 for the likeliest code
    scales,  # [B] float32, of guidance
    uniforms,  # [B, T] float32, of the codes
    commits,  # [B, T] float32, of the confidence
    said,  # [B, T] int64: drawn where masked, known elsewhere
    confidence,  # [B, T] float32: the probability of what is drawn, 1 elsewhere
    score,  # [B, T] float32: confidence and its noise, inf elsewhere
    trouble,  # [B] int32, set to 1 where no code is possible
    B,
    T,
    V,
    book,
    top_k,
    top_p,
    min_p,
    noise,
    GUIDED: tl.constexpr,
    TEMPERED: tl.constexpr,
    INJECTED: tl.constexpr,
    NOISY: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    MIN_P: tl.constexpr,
    KEEP: tl.constexpr,  # at least top_k
    BLOCK: tl.constexpr,  # at least V
):
    b, t = tl.program_id(0), tl.program_id(1)
    cell = (b * T + t).to(tl.int64)  # times V it may be past 32 bits
    v = tl.arange(0, BLOCK)
    code = tl.load(codes + b * codes_item + t)
    sure, worth = 1.0, float("inf")
    if tl.load(masked + cell) != 0:
        # 1. scores: guided, among the first k; all codes as good as the k-th are
        x = guided_row(logits, cell * V, (B * T + cell) * V, tl.load(scales + b), V, GUIDED, BLOCK)
        if TOP_K:
            best = largest(x, KEEP, BLOCK)
            x = tl.where(x < tl.max(tl.where(tl.arange(0, KEEP) == top_k - 1, best, -float("inf")), 0), -float("inf"), x)
        # 2. probabilities at the temperature, filtered
        temperature = tl.load(temperatures + b)
        p = softmax(tl.div_rn(x, tl.where(temperature == 0, 1.0, temperature)))
        kept = p
        if MIN_P:
            kept = tl.where(p >= min_p * tl.max(p, 0), p, 0.0)
        if TOP_P:
            falling = tl.sort(p, descending=True)
            inside = tl.cumsum(falling, 0) - falling < top_p
            kept = tl.where(p >= tl.min(tl.where(inside, falling, float("inf")), 0), p, 0.0)
        # 3. draw: codes keep their own order
        step, seed = tl.load(steps + b), tl.load(seeds + b)
        u = tl.load(uniforms + cell) if INJECTED else uniform(seed, t, step, book, MASKED)
        sums = tl.cumsum(kept.to(tl.float64), 0)
        mass = tl.max(sums, 0)
        drawn = tl.sum((sums <= u.to(tl.float64) * mass).to(tl.int32), 0)
        drawn = tl.where(temperature == 0, tl.argmax(x, 0), drawn)
        possible = mass > 0  # not so for NaN
        tl.store(trouble + b, 1, mask=possible == 0)
        code = tl.where(possible, drawn, 0).to(tl.int64)
        # 4. how sure it is, with Gumbel noise that falls with the passes that are left
        if not TEMPERED:
            p = softmax(x)
        sure = tl.sum(tl.where(v == drawn, p, 0.0), 0)
        worth = sure
        if NOISY:
            w = tl.load(commits + cell) if INJECTED else uniform(seed, t, step, book, COMMIT)
            worth += noise * tl.load(left + b) * -tl.log(-tl.log(w))
    tl.store(said + cell, code)
    tl.store(confidence + cell, sure)
    tl.store(score + cell, worth)


@triton.jit
def keep_cells(codes, codes_item, masked, said, score, stay, T, V, BLOCK: tl.constexpr):
    """Of each item the `stay` [B] int64 masked cells of the lowest score stay masked, of equal ones the first; others are kept.

    In place: codes [B, T] (V where masked) and masked [B, T]. BLOCK is at least T.
    """
    b = tl.program_id(0)
    t = tl.arange(0, BLOCK)
    cell = b * T + t
    open_ = tl.load(masked + cell, mask=t < T, other=0) != 0
    x = tl.load(score + cell, mask=t < T, other=float("inf"))
    x = tl.where(open_, x, float("inf")) + 0.0  # -0 becomes 0, for their bits differ
    # Keys of score and frame: the bits of floats sort as whole numbers do once those of negative ones are turned round.
    bits = x.to(tl.int32, bitcast=True)
    key = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) << 32) | t.to(tl.int64)
    many = tl.minimum(tl.load(stay + b), BLOCK)
    rising = tl.sort(key)
    worst = tl.max(tl.where(t < many, rising, -0x7FFFFFFFFFFFFFFF), 0)
    kept = open_ & (key > worst)
    tl.store(codes + b * codes_item + t, tl.load(said + cell, mask=kept, other=0), mask=kept)
    tl.store(codes + b * codes_item + t, tl.full([BLOCK], V, tl.int64), mask=open_ & (key <= worst))
    tl.store(masked + cell, open_ & (key <= worst), mask=t < T)
