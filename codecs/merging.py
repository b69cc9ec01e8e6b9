"""Codec merging: frames that share a code, so that a coarse codebook changes less often, without training anything again.

    frames       0   1   2   3   4            m = 2 for book 0, 1 for the others
    book 0      [ 7   7 | 3   3 | 9 ]         codes the mean over each group of what is left
    book 1        4   1   8   2   6           what that leaves of each frame

Source: Han et al. 2024, VALL-E R (arXiv:2406.07855), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tts.codecs.rvq import Book, ResidualVQ

from tts.frames import frame_mask


def check_merge(merge: Sequence[int], codebooks: int) -> str:
    """What is wrong with numbers of frames that share a code, one for each of the first codebooks; "" for nothing."""
    if len(merge) <= codebooks and all(m >= 1 for m in merge):
        return ""
    return f"merge is a number of frames, at least 1, for each of at most {codebooks} codebooks, got {tuple(merge)}"


@torch.no_grad()
def encode_merged(rvq: ResidualVQ, z: Tensor, merge: Sequence[int], lengths: Tensor | None = None) -> Tensor:
    """z [B, C, T] to codes [B, K, T] int64, those of book k the same over each group of merge[k] frames (1 where not given).

    The last group of a row has what frames are left; those beyond lengths [B] (None: all are real) count nowhere.
    """
    B, _, T = z.shape
    assert not (wrong := check_merge(merge, len(rvq.books))), wrong
    real = z.new_ones(B, T, 1) if lengths is None else frame_mask(lengths, T)[..., None].to(z.dtype)  # [B, T, 1]
    left = z.float().transpose(1, 2)  # [B, T, C]
    chosen = []
    for k, book in enumerate(rvq.books):
        assert isinstance(book, Book)
        m = merge[k] if k < len(merge) else 1
        codes = book.nearest(book.down(means(left, real, m))).repeat_interleave(m, 1)[:, :T]
        left = left - F.embedding(codes, book.vectors())
        chosen.append(codes)
    return torch.stack(chosen, 1)


def means(x: Tensor, real: Tensor, m: int) -> Tensor:
    """The mean of the real frames of each group of m: x [B, T, C], real [B, T, 1] (0 or 1) to [B, ceil(T / m), C]."""
    if m == 1:
        return x
    fill = (0, 0, 0, -x.shape[1] % m)
    total = F.pad(x * real, fill).unflatten(1, (-1, m)).sum(2)
    return total / F.pad(real, fill).unflatten(1, (-1, m)).sum(2).clamp(min=1)
