"""What the kernels share: noise by the house's contract, and a row of scores that guidance has mixed.

Numbers are loaded as they are stored, widened to float32 and only then computed with: arithmetic on bfloat16 would round at
every step on a GPU, and is wrong in Triton's interpreter.
"""

import triton
import triton.language as tl

from tts.sampling.philox import Purpose

CODES = tl.constexpr(int(Purpose.CODES))
MASKED = tl.constexpr(int(Purpose.MASKED))
COMMIT = tl.constexpr(int(Purpose.COMMIT))


@triton.jit
def uniform(seed, position, channel, step, purpose: tl.constexpr):
    """Noise.uniform of tts/sampling/philox.py: scalars or blocks that broadcast against each other to float32 in (0, 1)."""
    where, which, when = tl.cast(position, tl.uint32), tl.cast(channel, tl.uint32), tl.cast(step, tl.uint32)
    word, _, _, _ = tl.philox(seed, where, which, when, tl.full((), purpose, tl.uint32))
    return ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2**-23


@triton.jit
def guided_row(logits, conditional, unconditional, scale, V, GUIDED: tl.constexpr, BLOCK: tl.constexpr):
    """One row [BLOCK] of float32 scores from the rows that begin at these two offsets; -inf past V.

    u + scale * (c - u), and what the conditional row rules out stays so: -inf - -inf would be NaN.
    """
    v = tl.arange(0, BLOCK)
    x = tl.load(logits + conditional + v, mask=v < V, other=-float("inf")).to(tl.float32)
    if GUIDED:
        u = tl.load(logits + unconditional + v, mask=v < V, other=0.0).to(tl.float32)
        x = tl.where(x == -float("inf"), x, u + scale * (x - u))
    return x


@triton.jit
def softmax(x):
    """A row of probabilities; NaN in every place where a score is NaN or +inf, or none is above -inf."""
    e = tl.exp(x - tl.max(x, 0))
    return tl.div_rn(e, tl.sum(e, 0))


@triton.jit
def largest(x, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    """The KEEP largest of a block, falling. Both are powers of two."""
    return tl.topk(x, KEEP) if KEEP < BLOCK else tl.sort(x, descending=True)
