"""Which of three ways a decoding takes: chosen by the device, or by whoever sets MYNAH_PATH.

    plain    the definitions, in torch; on a CPU their lean form (tts/sampling/lean.py)    a CPU, or a GPU without Triton
    fused    Triton's kernels for draws, masks and solver steps (tts/sampling/fused.py)
    graph    the same, and what is done again and again captured as a CUDA graph           a GPU with Triton

All say the same, but where rounding decides. On a CPU, "graph" takes the graphs' code with nothing captured, and its kernels
run only in Triton's interpreter (TRITON_INTERPRET=1), without which the definitions do: that is how it is tested.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from tts.errors import SettingsError, nearest

VARIABLE = "MYNAH_PATH"  # the environment variable that chooses
PATHS = ("plain", "fused", "graph")


def path_for(device: torch.device | str) -> str:
    """One of PATHS. Raises SettingsError: MYNAH_PATH is none of them, or none that this device can take."""
    asked = os.environ.get(VARIABLE, "")
    if not asked:
        return "graph" if available(device) else "plain"
    if asked not in PATHS:
        hint = nearest(asked, list(PATHS))
        raise SettingsError(f"{VARIABLE} must be one of {', '.join(PATHS)}, or unset; got {asked!r}{hint}")
    kind = torch.device(device).type
    possible = available(device) or asked == "plain" or (kind == "cpu" and (asked == "graph" or _interpreted()))
    if not possible:
        raise SettingsError(f"{VARIABLE}={asked} needs Triton and a CUDA device, got {kind}; unset it, or set it to plain")
    return asked


def fused(device: torch.device | str) -> bool:
    """Whether decodings on this device draw by Triton's kernels."""
    return path_for(device) != "plain" and (available(device) or _interpreted())


def available(device: torch.device | str) -> bool:
    """Whether Triton's kernels run there. On a CPU they do not: the interpreter is for tests."""
    return torch.device(device).type == "cuda" and find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
