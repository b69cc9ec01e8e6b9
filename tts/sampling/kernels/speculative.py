"""SpecTr's k-SEQ for each row: which of k drafted codes is accepted, or what is said instead.

Defined by tts/sampling/speculative.py, where the law is written out.
"""

import triton
import triton.language as tl


@triton.jit
def spec_verify(
    target,  # [N, V]
    draft,  # [N, V]
    drafts,  # [N, k] int64, drawn from draft
    uniforms,  # [N, k + 1] float32
    codes,  # [N] int64
    accepted,  # [N] int64: which draft, k where none is
    V,
    DRAFTS: tl.constexpr,  # k
    ROUNDS: tl.constexpr,  # of bisection
    BLOCK: tl.constexpr,  # at least V
):
    n = tl.program_id(0).to(tl.int64)
    v = tl.arange(0, BLOCK)
    p = tl.load(target + n * V + v, mask=v < V, other=0.0).to(tl.float64)
    q = tl.load(draft + n * V + v, mask=v < V, other=0.0).to(tl.float64)
    # 1. how strict to be: the least g in [1, k] that leaves a residual
    low, high = tl.full((), 1.0, tl.float64), tl.full((), 1.0 * DRAFTS, tl.float64)
    for _ in range(ROUNDS):
        g = (low + high) / 2
        beta = tl.sum(tl.minimum(q, p / g), 0)
        missed = 1 - beta
        for _ in tl.static_range(DRAFTS - 1):
            missed = missed * (1 - beta)
        enough = 1 - missed <= g * beta
        low, high = tl.where(enough, low, g), tl.where(enough, g, high)
    # 2. the first draft that passes
    code = tl.full((), 0, tl.int64)
    which = tl.full((), DRAFTS, tl.int64)
    for i in tl.static_range(DRAFTS):
        x = tl.load(drafts + n * DRAFTS + i)
        px, qx = tl.sum(tl.where(v == x, p, 0.0), 0), tl.sum(tl.where(v == x, q, 0.0), 0)
        passes = (which == DRAFTS) & (tl.load(uniforms + n * (DRAFTS + 1) + i).to(tl.float64) * high * qx < px)
        code, which = tl.where(passes, x, code), tl.where(passes, i, which)
    # 3. else what the accepted ones leave of the target
    shared = tl.minimum(q, p / high)
    beta = tl.sum(shared, 0)
    missed = tl.full((), 1.0, tl.float64)
    for _ in tl.static_range(DRAFTS):
        missed = missed * (1 - beta)
    rest = tl.maximum(p - shared * ((1 - missed) / tl.maximum(beta, 1e-30)), 0.0)
    rest = tl.where(tl.sum(rest, 0) > 0, rest, p)
    sums = tl.cumsum(rest, 0)
    u = tl.load(uniforms + n * (DRAFTS + 1) + DRAFTS).to(tl.float64)
    other = tl.sum((sums <= u * tl.max(sums, 0)).to(tl.int64), 0)
    tl.store(codes + n, tl.where(which == DRAFTS, other, code))
    tl.store(accepted + n, which)
