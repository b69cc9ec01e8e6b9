"""A step of autoregressive decoding in two launches: K codes from their scores, then their vectors for the step after.

    scores [2B, K, V] ─► sample_codes, a program for each (item, book) ─► said[:, :, column]
    said[:, :, column] ─► embed_codes, a program for each (item, part of D) ─► vectors [2B, D];  ends, countdown, clock

Defined by tts/sampling/reference.py (the draw) and tts/sampling/steps.py (the step). Between programs of one launch nothing is
ordered, hence a clock of two words: sample_codes reads the first and sets the second, embed_codes the other way round. And
hence the end of speech waits for embed_codes: a book beside book 0 cannot know in sample_codes what book 0 says.
"""

import triton
import triton.language as tl

from tts.sampling.kernels.rows import CODES, guided_row, largest, softmax, uniform


@triton.jit
def sample_codes(
    logits,  # [B or 2B, K, V] conditional rows first
    rules,  # [5, K] float64: temperature, top_k, repetition penalty, top_p, min_p
    history,  # [B, K, …] int64, rows of codes of these two strides; in a loop it is `said` itself
    history_item,
    history_book,
    forbidden,  # [B, K, V] bool of these three strides
    forbidden_item,
    forbidden_book,
    forbidden_code,
    may_end,  # [B] bool: items that may say the last code
    uniforms,  # [B, K] float32
    seeds,  # [B] int64
    clock,  # [2] int64
    delays,  # [K] int64
    codes,  # [B, K] int64 without a loop, -1 where no code is possible; in a loop it is `said`, of the strides of history
    trouble,  # [B] int32, set to 1 where no code is possible
    B,
    V,
    scale,
    window,
    room,  # the column of step 0
    last,  # the last column, where steps past the end of all items write
    first,  # the book that is k = 0 here: where all are drawn at once it is the first
    GUIDED: tl.constexpr,
    FORBIDDEN: tl.constexpr,
    ENDING: tl.constexpr,
    INJECTED: tl.constexpr,
    LOOP: tl.constexpr,
    TOP_P: tl.constexpr,
    MIN_P: tl.constexpr,
    PARTS: tl.constexpr,  # of the window, of 16 codes each
    KEEP: tl.constexpr,  # at least the largest top_k
    BLOCK: tl.constexpr,  # at least V
):
    b, k, K = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    v = tl.arange(0, BLOCK)
    row = b * history_item + k * history_book
    # 1. when: the book's frame, and the column of the step in the code buffer
    frame = tl.full((), 0, tl.int64)
    column = frame
    if LOOP:
        step = tl.load(clock)
        frame = step - tl.load(delays + k)
        column = tl.minimum(room + step, last)
        tl.store(clock + 1, step + 1, mask=b + k == 0)
        history += column - window
    # 2. scores: guided, without what is forbidden, repetitions made less likely
    x = guided_row(logits, (b * K + k) * V, ((B + b) * K + k) * V, scale, V, GUIDED, BLOCK)
    if FORBIDDEN:
        at = forbidden + b * forbidden_item + k * forbidden_book + v * forbidden_code
        x = tl.where(tl.load(at, mask=v < V, other=0) != 0, -float("inf"), x)
    if ENDING:
        x = tl.where((v == V - 1) & (tl.load(may_end + b) == 0), -float("inf"), x)
    if PARTS > 0:
        said = tl.zeros([BLOCK], tl.int32)
        for part in range(PARTS):
            w = part * 16 + tl.arange(0, 16)
            before = tl.load(history + row + w, mask=w < window, other=-1)
            said = tl.maximum(said, tl.max((v[:, None] == before[None, :]).to(tl.int32), 1))
        by = tl.load(rules + 2 * K + k).to(tl.float32)
        x = tl.where(said != 0, tl.minimum(tl.div_rn(x, by), x * by), x)
    # 3. sort: keys of probability and index, the lower index first among equals; of positive floats the bits sort as they do
    temperature = tl.load(rules + k).to(tl.float32)
    p = softmax(tl.div_rn(x, tl.where(temperature == 0, 1.0, temperature)))
    key = (p.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (BLOCK - 1 - v).to(tl.int64)
    key = largest(key, KEEP, BLOCK)
    p = (key >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    # 4. filter: what is kept is a beginning of that order
    rank = tl.arange(0, KEEP)
    p = tl.where(rank < tl.load(rules + K + k), p, 0.0)
    exact = p.to(tl.float64)
    sums = tl.cumsum(exact, 0)
    mass = tl.max(sums, 0)
    if TOP_P:
        mass = tl.max(tl.where(sums - exact < tl.load(rules + 3 * K + k) * mass, sums, 0.0), 0)
    if MIN_P:
        mass = tl.max(tl.where(p >= tl.load(rules + 4 * K + k).to(tl.float32) * tl.max(p, 0), sums, 0.0), 0)
    # 5. draw: the first code at which the sum exceeds u * mass
    u = tl.load(uniforms + b * K + k) if INJECTED else uniform(tl.load(seeds + b), tl.maximum(frame, 0), first + k, 0, CODES)
    chosen = tl.sum((sums <= u.to(tl.float64) * mass).to(tl.int32), 0)
    code = tl.sum(tl.where(rank == chosen, BLOCK - 1 - (key & 0xFFFFFFFF), 0), 0)
    code = tl.where(temperature == 0, tl.argmax(x, 0).to(tl.int64), code)
    possible = mass > 0  # not so for NaN
    # 6. write; before its first frame a book keeps what stands there
    if LOOP:
        tl.store(codes + row + column, tl.where(possible, code, 0), mask=frame >= 0)
        tl.store(trouble + b, 1, mask=possible == 0)
    else:
        tl.store(codes + b * K + k, tl.where(possible, code, -1))


@triton.jit
def embed_codes(
    table,  # [K * (V + 1), D]
    out,  # [groups * B, D], or [groups * B, K, D] where rows are not summed
    said,  # [B, K, …] int64 of these two strides
    said_item,
    said_book,
    clock,  # [2] int64
    delays,  # [K] int64
    ends,  # [B] int64: the frames of each item; falls when it ends early
    left,  # [B] int64: the steps that it still needs
    B,
    V,
    D,
    late,  # the largest delay
    room,
    last,
    K: tl.constexpr,
    GROUPS: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    b, part = tl.program_id(0), tl.program_id(1)
    d = part * BLOCK + tl.arange(0, BLOCK)
    first = part == 0  # this program writes; what the others read they read right, before or after: it is all idempotent
    step = tl.load(clock + 1) - 1
    row = said + b * said_item + tl.minimum(room + step, last)
    # 1. the end of speech, and the countdown of the late books
    end = tl.load(ends + b)
    end = tl.where(tl.load(row) == V, tl.minimum(end, step), end)
    tl.store(ends + b, end, mask=first)
    tl.store(left + b, tl.maximum(end + late - (step + 1), 0), mask=first)
    tl.store(clock, step + 1, mask=first & (b == 0))
    # 2. codes past an item's end are none; then their rows
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(K):
        frame = step - tl.load(delays + k)
        code = tl.load(row + k * said_book)
        code = tl.where(frame < end, code, V)
        tl.store(row + k * said_book, code, mask=first)
        x = tl.load(table + (k * (V + 1) + code) * D + d, mask=d < D, other=0.0).to(tl.float32)
        if SUM:
            total += x
        else:
            for group in tl.static_range(GROUPS):
                at = out + ((group * B + b) * K + k) * D + d
                tl.store(at, x.to(out.dtype.element_ty), mask=d < D)
    if SUM:
        for group in tl.static_range(GROUPS):
            tl.store(out + (group * B + b) * D + d, total.to(out.dtype.element_ty), mask=d < D)
