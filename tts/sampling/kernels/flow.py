"""A flow's step in one pass over memory: velocities guided, x carried on. See `flow_step` of tts/sampling/reference.py."""

import triton
import triton.language as tl


@triton.jit
def flow_step(x, velocity, out, scale, step, N, GUIDED: tl.constexpr, BLOCK: tl.constexpr):
    """x, out: [N] numbers. velocity: [N], or where guided [2N], conditional ones first."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < N
    v = tl.load(velocity + i, mask=inside, other=0.0).to(tl.float32)
    if GUIDED:
        u = tl.load(velocity + N + i, mask=inside, other=0.0).to(tl.float32)
        v = u + scale * (v - u)
    y = tl.load(x + i, mask=inside, other=0.0).to(tl.float32) + step * v
    tl.store(out + i, y.to(out.dtype.element_ty), mask=inside)
