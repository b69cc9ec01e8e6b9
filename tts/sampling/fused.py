"""The samplers as Triton kernels: what tts/sampling/kernels/ computes, with tensors checked and launched.

    sample_codes                 a drop-in for tts/sampling/reference.py's, one launch
    sample_step, embed_step      a step of tts/sampling/steps.py, one launch each, fit for a captured graph
    mask_step                    a pass of masked decoding, two launches
    spec_verify, flow_step       one launch each

They run on CUDA, and in Triton's interpreter where TRITON_INTERPRET=1 was set before Triton was imported. The codes are those
of the plain definitions for equal uniforms, but where rounding moves a sum across the uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tts.errors import MissingPackageError, SettingsError, ShapeError
from tts.sampling import lean, paths, reference, speculative
from tts.sampling.policy import Policy
from tts.sampling.steps import Steps

Sampler: TypeAlias = Callable[..., Tensor]  # as reference.sample_codes


def sampler_for(device: torch.device | str) -> Sampler:
    """`sample_guided` for a device: by the kernel, or else on a CPU the lean one, elsewhere the definition."""
    if paths.fused(device):
        return sample_guided
    return lean.sample_guided if torch.device(device).type == "cpu" else reference.sample_guided


def sample_guided(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """As tts/sampling/reference.py's."""
    return sample_codes(reference.guided(logits, policy.guidance), uniforms, policy, history, forbidden)


def sample_codes(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """As tts/sampling/reference.py's: the same arguments, codes [B, K] int64, and errors, for which it waits."""
    if logits.dim() != 3 or uniforms.shape != logits.shape[:2]:
        raise ShapeError(f"logits must be [B, K, V] and uniforms [B, K], got {tuple(logits.shape)}, {tuple(uniforms.shape)}")
    B, K, V = logits.shape
    policy.check_books(K)
    codes = torch.empty(B, K, dtype=torch.int64, device=logits.device)
    if not B:
        return codes
    window = history.shape[2] if history is not None and policy.penalises else 0
    before = _rows(history) if history is not None else codes
    barred = forbidden.expand(B, K, V) if forbidden is not None else logits
    logits, uniforms = logits.contiguous(), uniforms.contiguous()
    _kernel("codes", "sample_codes")[(B, K)](
        *(logits, rules(policy, K, logits.device), before, before.stride(0), before.stride(1), barred, *barred.stride()),
        *(codes, uniforms, codes, codes, codes, codes, codes),  # may_end, seeds, clock, delays and trouble are not read
        *(B, V, 1.0, window, 0, 0, 0),
        **{"GUIDED": False, "FORBIDDEN": forbidden is not None, "ENDING": False, "INJECTED": True, "LOOP": False},
        **_filters(policy, window, V),
    )
    reference.check_possible(codes >= 0)
    return codes


def sample_step(
    logits: Tensor,
    steps: Steps,
    policy: Policy,
    may_end: Tensor | None = None,
    uniforms: Tensor | None = None,
    book: int | None = None,
) -> None:
    """As tts/sampling/steps.py's; waits for nothing, and where no code is possible marks `trouble`."""
    B, first = len(steps.said), book if book is not None else 0
    K = steps.said.shape[1] if book is None else 1
    V, groups = logits.shape[-1], 1 if policy.guidance == 1 else 2
    if logits.shape[:2] != (groups * B, K) or V - steps.V not in (0, 1):
        raise ShapeError(f"logits must be [{groups * B}, {K}, {steps.V}] or one wider, got {tuple(logits.shape)}")
    window = policy.repetition_window if policy.penalises else 0
    if window > steps.room:
        raise SettingsError(f"steps were begun with room for {steps.room} codes, the window is {window}")
    policy.check_books(K)
    said, delays = steps.said[:, first : first + K], steps.delays[first : first + K]
    ending = may_end is not None and V > steps.V
    given = uniforms if uniforms is not None else logits
    logits, given = logits.contiguous(), given.contiguous()
    _kernel("codes", "sample_codes")[(B, K)](
        *(logits, rules(policy, K, logits.device), said, said.stride(0), said.stride(1), logits, 0, 0, 0),
        *(may_end if ending else logits, given, steps.seeds, steps.clock, delays, said, steps.trouble),
        *(B, V, float(policy.guidance), window, steps.room, said.shape[2] - 1, first),
        **{"GUIDED": groups == 2, "FORBIDDEN": False, "ENDING": ending, "INJECTED": uniforms is not None, "LOOP": True},
        **_filters(policy, window, V),
    )


def embed_step(table: Tensor, steps: Steps, groups: int = 1, join: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """As tts/sampling/steps.py's. Tables of low rank are gathered here, and `join` is the caller's."""
    B, K, _ = steps.said.shape
    D = table.shape[1]
    if len(table) != K * (steps.V + 1):
        raise ShapeError(f"tables of {K} books must have {K * (steps.V + 1)} rows, got {len(table)}")
    out = table.new_empty((groups * B, D) if join is None else (groups * B, K, D))
    block = min(256, _power(D))
    _kernel("codes", "embed_codes")[(B, -(-D // block))](
        *(table.contiguous(), out, steps.said, steps.said.stride(0), steps.said.stride(1), steps.clock, steps.delays),
        *(steps.ends, steps.left, B, steps.V, D, steps.late, steps.room, steps.said.shape[2] - 1),
        **{"K": K, "GROUPS": groups, "SUM": join is None, "BLOCK": block},
    )
    return out if join is None else join(out.flatten(-2))


def mask_step(
    logits: Tensor,
    codes: Tensor,
    masked: Tensor,
    stay: Tensor,
    seeds: Tensor,
    book: int,
    step: Tensor,
    policy: Policy,
    *,
    left: Tensor,
    temperature: Tensor,
    guidance: Tensor | None = None,
    noise: float = 0.0,
    tempered: bool = False,
    uniforms: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over one book: `draw` of tts/decoding/masked.py, then `ByConfidence(noise)` of tts/decoding/commit.py.

    Args:
        logits: [B, T, V] float, or with guidance [2B, T, V], conditional rows first; only masked cells are read.
        codes, masked: [B, T] int64 (V where masked) and bool, changed in place.
        stay: [B] int64, cells of each item that stay masked. step: [B] int64. left, temperature, guidance: [B] float32.
        policy: the book's; of it top_k, top_p and min_p.
        uniforms: [B, T] of codes and [B, T] of confidence; None: by Philox, as the decoder has them.
    Returns: of all masked cells what was drawn [B, T], its confidence [B, T] float32, and trouble [B] int32, 1 where scores
        allowed no code.
    """
    B, T = codes.shape
    V, device = logits.shape[-1], logits.device
    rows = B if guidance is None else 2 * B
    if logits.shape[:2] != (rows, T) or masked.shape != (B, T):
        raise ShapeError(
            f"logits must be [{rows}, {T}, V], masked [{B}, {T}]; got {tuple(logits.shape)}, {tuple(masked.shape)}"
        )
    if not masked.is_contiguous() or codes.stride(-1) != 1:
        raise ShapeError("masked must be contiguous, and so must be the rows of codes: they are changed in place")
    if isinstance(policy.top_k, tuple):
        raise SettingsError("mask_step takes the policy of one book, see Policy.book")
    said, score = torch.empty_like(masked, dtype=torch.int64), torch.empty(B, T, device=device)
    confidence, trouble = torch.empty_like(score), torch.zeros(B, dtype=torch.int32, device=device)
    if not B * T:
        return said, confidence, trouble
    k = policy.top_k if policy.top_k is not None and policy.top_k < V else None
    first, second = uniforms if uniforms is not None else (score, score)
    floats = [x.float().contiguous() for x in (left, temperature, guidance if guidance is not None else left)]
    _kernel("masked", "draw_cells")[(B, T)](
        *(logits.contiguous(), codes, codes.stride(0), masked, seeds.contiguous(), step.contiguous(), *floats),
        *(first.contiguous(), second.contiguous(), said, confidence, score, trouble, B, T, V, book, k or 0),
        *(policy.top_p or 1.0, policy.min_p or 0.0, float(noise)),
        **{"GUIDED": guidance is not None, "TEMPERED": tempered, "INJECTED": uniforms is not None, "NOISY": noise != 0},
        **{"TOP_K": k is not None, "TOP_P": policy.top_p not in (None, 1), "MIN_P": policy.min_p is not None},
        **{"KEEP": min(_power(k or 1), _power(V)), "BLOCK": _power(V), "num_warps": _warps(V)},
    )
    _kernel("masked", "keep_cells")[(B,)](
        *(codes, codes.stride(0), masked, said, score, stay.contiguous(), T, V), BLOCK=_power(T), num_warps=_warps(T)
    )
    return said, confidence, trouble


def spec_verify(target: Tensor, draft: Tensor, drafts: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """As tts/sampling/speculative.py's."""
    speculative.check_shapes(target, draft, drafts, uniforms)
    (N, V), k = target.shape, drafts.shape[1]
    codes, which = (torch.empty(N, dtype=torch.int64, device=target.device) for _ in range(2))
    if N:
        _kernel("speculative", "spec_verify")[(N,)](
            *(target.contiguous(), draft.contiguous(), drafts.contiguous(), uniforms.contiguous(), codes, which, V),
            **{"DRAFTS": k, "ROUNDS": speculative.ROUNDS, "BLOCK": _power(V), "num_warps": _warps(V)},
        )
    return codes, which


def flow_step(x: Tensor, velocity: Tensor, step: float, scale: float = 1.0) -> Tensor:
    """As tts/sampling/reference.py's."""
    rows = len(x) * (1 if scale == 1 else 2)
    if velocity.shape != (rows, *x.shape[1:]):
        raise ShapeError(f"the velocity must be {(rows, *x.shape[1:])}, got {tuple(velocity.shape)}")
    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if N := x.numel():
        _kernel("flow", "flow_step")[(-(-N // 1024),)](
            x, velocity.contiguous(), out, float(scale), float(step), N, GUIDED=scale != 1, BLOCK=1024
        )
    return out


@lru_cache(maxsize=64)
def rules(policy: Policy, K: int, device: torch.device) -> Tensor:
    """[5, K] float64: temperature, top_k, repetition penalty, top_p and min_p of each book, as the kernel reads them.

    Made when first asked for: a captured graph needs one step before it, and its owner to hold these as long as it lives.
    """
    books = [policy.book(k) for k in range(K)]
    rows = [(p.temperature, p.top_k or 2**30, p.repetition_penalty, p.top_p or 1.0, p.min_p or 0.0) for p in books]
    return torch.tensor(rows, dtype=torch.float64).T.contiguous().to(device)


def _filters(policy: Policy, window: int, V: int) -> dict[str, Any]:
    """What of a policy settles which program is compiled, and its size."""
    most = V if policy.top_k is None else max(policy.top_k if isinstance(policy.top_k, tuple) else (policy.top_k,))
    sizes = {"PARTS": -(-window // 16), "KEEP": min(_power(most), _power(V)), "BLOCK": _power(V), "num_warps": _warps(V)}
    return {"TOP_P": policy.top_p is not None, "MIN_P": policy.min_p is not None, **sizes}


def _kernel(family: str, name: str) -> Any:
    """A kernel, its file imported when it is first launched."""
    if find_spec("triton") is None:
        raise MissingPackageError("fused sampling needs Triton, which exists for Linux: pip install triton")
    return getattr(import_module(f"tts.sampling.kernels.{family}"), name)


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _power(n: int) -> int:
    """The power of two at or above n; at least 16, below which the sorts have nothing to share out."""
    return max(16, 1 << (n - 1).bit_length())


def _warps(n: int) -> int:
    return max(1, min(8, _power(n) // 128))
