"""Counter-based randomness: Philox4x32-10, so that a draw is a pure function of what it is for.

The contract, which every implementation of `Noise` keeps, whatever the device:

    key      word 0  low 32 bits of the item's seed         counter  word 0  position (frame or step of a sequence)
             word 1  high 32 bits of the item's seed                 word 1  channel (or codebook, or code)
                                                                     word 2  step
                                                                     word 3  purpose
    uniform  u(w) = ((w >> 9) + 0.5) / 2**23 of output word 0: 23 bits and a half, exact in float32, strictly in (0, 1)
    normal   sqrt(-2 ln u(w0)) cos(2 pi u(w1)) of output words 0 and 1 (Box-Muller)
    gumbel   -ln(-ln u(w0))

Nothing depends on a row number, a batch or an order, and a longer sequence begins with the draws of a shorter one.
24 bits and a half would be 1.0 after rounding to float32, hence 23. Words 2 and 3 of the output are not used.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; test vectors in tests/test_philox.py.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

MASK = 0xFFFF_FFFF
MULTIPLIERS = (0xD251_1F53, 0xCD9E_8D57)
WEYL = (0x9E37_79B9, 0xBB67_AE85)  # the golden ratio and sqrt(3) - 1, added to the key each round
ROUNDS = 10

Words = tuple[int, int, int, int]


class Purpose(IntEnum):
    """What a draw is for. A number is never given a second meaning: that would change what old seeds say."""

    DERIVE = 0  # seeds made from seeds, see `derive`
    FLOW = 1  # the noise from which a flow starts
    TIME = 2  # the flow time of a training example
    SPAN = 3  # the frames a training example must fill in
    DROP = 4  # the conditions a training example goes without
    CODES = 5  # the codes of an autoregressive model
    POINTER = 6  # whether the phone pointer advances
    MASKED = 7  # the codes of masked cells
    COMMIT = 8  # which of them are committed first


class PhiloxNoise:
    """The house's `Noise`. Has no state.

    In every method seeds, position and channel (int64 tensors on one device) broadcast against each other; seeds may be any
    64 bits, position and channel lie in [0, 2**32), as do step and purpose. Returns float32 of the broadcast shape.
    For frames [B, C, T]: seeds[:, None, None], position = arange(T), channel = arange(C)[:, None].
    """

    def uniform(self, seeds: Tensor, purpose: int, step: int, position: Tensor, channel: Tensor) -> Tensor:
        """Uniform draws strictly inside (0, 1)."""
        return _unit(_draw(seeds, purpose, step, position, channel)[0])

    def normal(self, seeds: Tensor, purpose: int, step: int, position: Tensor, channel: Tensor) -> Tensor:
        """Standard normal draws, |x| < 5.8."""
        w0, w1, _, _ = _draw(seeds, purpose, step, position, channel)
        return _unit(w0).log_().mul_(-2.0).sqrt_().mul_(_unit(w1).mul_(2.0 * math.pi).cos_())

    def gumbel(self, seeds: Tensor, purpose: int, step: int, position: Tensor, channel: Tensor) -> Tensor:
        """Standard Gumbel draws: argmax(logits + gumbel) is a draw from softmax(logits)."""
        return self.uniform(seeds, purpose, step, position, channel).log_().neg_().log_().neg_()


def derive(seed: int, *words: int) -> int:
    """A seed made from a seed, for instance `derive(seed, sentence, attempt)`; in [0, 2**63), the same on every machine.

    For word number i = 0, 1, …: seed <- output words 0 (low) and 1 (high) of the block with key `seed` and counter
    (low half of the word, high half, i, Purpose.DERIVE). The top bit is dropped at the end.
    """
    for i, word in enumerate(words):
        low, high, _, _ = block((word & MASK, word >> 32 & MASK, i, Purpose.DERIVE), (seed & MASK, seed >> 32 & MASK))
        seed = high << 32 | low
    return seed & (2**63 - 1)


def block(counter: Words, key: tuple[int, int]) -> Words:
    """One Philox4x32-10 block in Python integers: the definition that `blocks` is tested against."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & MASK, p0 >> 32 ^ c3 ^ k1, p0 & MASK
        k0, k1 = k0 + WEYL[0] & MASK, k1 + WEYL[1] & MASK
    return c0, c1, c2, c3


def blocks(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Many blocks at once: int64 tensors that hold 32-bit words and broadcast against each other.

    A CPU's are NumPy's for the while: of few numbers a hundred and fifty operations cost it less than half of torch's time.
    """
    if counter[0].device.type != "cpu":
        return _rounds(*counter, *key)
    with np.errstate(over="ignore"):  # single numbers wrap as arrays do, but not in silence
        words = _rounds(*(word.numpy() for word in (*counter, *key)))
    w0, w1, w2, w3 = (torch.from_numpy(np.asarray(word)) for word in words)
    return w0, w1, w2, w3


def _rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Tensors or arrays, int64: products wrap modulo 2**64, so their 64 bits are right; the shift carries the sign down, hence
    the masks. Words 1 and 3 may keep bits above the 32nd between rounds: they are only XORed, and the result is masked.
    """
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) ^ (c1 ^ k0)) & MASK, p1, ((p0 >> 32) ^ (c3 ^ k1)) & MASK, p0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1 & MASK, c2, c3 & MASK


def _draw(seeds: Tensor, purpose: int, step: int, position: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def constant(word: int) -> Tensor:
        return torch.tensor(word, dtype=torch.int64, device=seeds.device)

    return blocks((position, channel, constant(step), constant(purpose)), (seeds & MASK, (seeds >> 32) & MASK))


def _unit(word: Tensor) -> Tensor:
    """32-bit words to float32 strictly inside (0, 1); a fresh, contiguous tensor."""
    return (word >> 9).float().add_(0.5).mul_(2.0**-23).contiguous()
