"""MAGNeT: the weights of its language model, in audiocraft's names, as a `masked` backend.

They are named as MusicGen's are (tts/hub/audiocraft.py); what differs is that every position looks both ways, and in books
above 0 only five frames far. Its text is T5's last hidden states, which an utterance carries as `content`; unguided rows keep
the prompt and attend to zeros.
Source: facebookresearch/audiocraft (audiocraft/models/lm_magnet.py), Ziv et al. 2024 (arXiv:2401.04577).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tts.hub import audiocraft
from tts.registry import build

BAND = 5
# How the public models speak: music, and sounds.
SETTINGS = {
    "steps": (20, 10, 10, 10),
    "temperature": 3.0,
    "top_k": None,
    "top_p": 0.9,
    "min_p": None,
    "guidance": 10.0,
    "last_guidance": 1.0,
    "schedule": "magnet",
    "anneal": "magnet",
    "commit": "span",
    "span": 3,
    "tempered": True,
}
AUDIO_SETTINGS = {**SETTINGS, "temperature": 3.5, "top_p": 0.8, "guidance": 20.0}
SAME = ("codebooks", "size", "dim", "depth", "heads", "head_dim", "ff_mult", "positions", "dropout", "context")


def load(state: Mapping[str, Tensor], heads: int | None = None, rate: int = 50, flavour: str = "") -> Any:
    """The backend of a state dict in audiocraft's names, ready to speak.

    heads: None: channels / 64. rate: frames a second of the codec. flavour: of the codec.
    Raises CheckpointError: a name that is not known, or one that is missing.
    """
    config, weights = convert(state, heads)
    backend = build("backend", "masked", config | {"rate": str(rate), "flavour": flavour})
    backend.load_state_dict(weights)
    return backend.eval()


def convert(state: Mapping[str, Tensor], heads: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config of a `masked` backend as plain values, and its state dict; sizes are the tensors'. Raises as `load`."""
    theirs, named = audiocraft.convert(state, heads)
    K, size = theirs["codebooks"], theirs["size"]
    weights = {}
    for name, tensor in named.items():
        name = name.replace("network.trunk.", "network.transformer.").replace("_norm.", "_norm.norm.")
        weights[name.replace("transformer.norm.", "transformer.norm.norm.")] = tensor
    out = weights.pop("network.head.out.weight")  # [K V, D]
    weights["network.head.table"] = out.unflatten(0, (K, size)).transpose(1, 2).contiguous()
    weights["network.head.bias"] = torch.zeros(K, size)
    config = {name: theirs[name] for name in SAME} | {
        "layout": "magnet",
        "vocabulary": 0,
        "code_dim": None,
        "norm": "layer",
        "band": BAND,
        "text": "cross",
        "text_dim": theirs["text_dim"],
        "text_layers": 0,
        "stays": 0,
        "voice": False,
        "unguided": "prompt",
    }
    return config, weights
