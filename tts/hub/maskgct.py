"""MaskGCT: the weights of its two masked networks, in Amphion's names, as `masked` backends.

    T2S    phones ─► semantic codes           the phones stand before the frames; one book of 8192
    S2A    semantic codes ─► acoustic codes   each frame is told its semantic code, a token of one frame; 1 or 12 books of 1024

What says how loudly a layer speaks is told the time of the step; positions are rotated by halves there and by neighbours here,
so the rows of queries and keys are put in another order. Codecs and semantic tokenizer are not converted.
Sources: open-mmlab/Amphion (models/tts/maskgct), Wang et al. 2024 (arXiv:2409.00750).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tts.errors import CheckpointError
from tts.registry import build

HEADS = 16  # of every released model
CONTEXT = 4096
# How the public pipeline speaks. Its guidance w adds w times the difference, so the scale here is w + 1.
T2S_SETTINGS = {
    "steps": 25,
    "temperature": 0.9,
    "top_k": 164,
    "min_p": None,
    "guidance": 3.5,
    "rescale": 0.75,
    "noise": 1.0,
    "anneal": "maskgct",
}
S2A_SETTINGS = {**T2S_SETTINGS, "steps": (25, 10, 1), "temperature": 1.5, "top_k": 21}

# Names here by Amphion's: of a layer, and of the rest.
LAYER = {
    "self_attn.o_proj.weight": "attention_out.weight",
    "mlp.down_proj.weight": "feed_out.weight",
    "input_layernorm.to_weight.weight": "attention_norm.scale.weight",
    "input_layernorm.to_weight.bias": "attention_norm.scale.bias",
    "post_attention_layernorm.to_weight.weight": "feed_norm.scale.weight",
    "post_attention_layernorm.to_weight.bias": "feed_norm.scale.bias",
}
REST = {
    "diff_estimator.norm.to_weight": "transformer.norm.scale",
    "diff_estimator.diff_step_mlp.0": "transformer.time.first",
    "diff_estimator.diff_step_mlp.2": "transformer.time.second",
    "diff_estimator.cond_mlp.0": "text_in.0",
    "diff_estimator.cond_mlp.2": "text_in.2",
}
UNUSED = "diff_estimator.embed_tokens.weight"  # of no rows


def load(state: Mapping[str, Tensor], heads: int = HEADS, rate: int = 50, flavour: str = "", table: str = "") -> Any:
    """The backend of a state dict, T2S or S2A, ready to speak.

    Args:
        rate: frames a second. flavour: of the codec, or of the semantic tokenizer. table: identity of the phones, or of the
            semantic codes, which are an S2A's tokens.
    Raises:
        CheckpointError: a name that is not known, or one that is missing.
    """
    config, weights = convert(state, heads)
    backend = build("backend", "masked", config | {"rate": str(rate), "flavour": flavour, "table": table})
    backend.load_state_dict(weights)
    return backend.eval()


def convert(state: Mapping[str, Tensor], heads: int = HEADS) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config of a `masked` backend as plain values, and its state dict; sizes are the tensors'. Raises as `load`."""
    taken: set[str] = {UNUSED}

    def take(name: str) -> Tensor:
        if name not in state:
            raise CheckpointError(f"these weights are not a MaskGCT's: {name} is missing")
        taken.add(name)
        return state[name].float()

    # 1. codes and text, which the two networks have each in its own way
    acoustic = "layer_emb.weight" in state
    if acoustic:
        K = len(take("layer_emb.weight"))
        tables = [take(f"token_emb.{k}.weight") for k in range(K)]
        heads_out = [(take(f"to_logits.{k}.weight"), take(f"to_logits.{k}.bias")) for k in range(K)]
        text = {"text.table.weight": take("cond_emb.weight"), "book.weight": take("layer_emb.weight")}
    else:
        K, tables = 1, [take("cond_emb.weight")]
        heads_out = [(take("to_logit.weight"), take("to_logit.bias"))]
        text = {"text.table.weight": take("phone_emb.weight")}
    size, dim = tables[0].shape
    mask = take("mask_emb.weight")
    weights = {
        "codes.table.weight": torch.cat([torch.cat((book, mask)) for book in tables]),
        "head.table": torch.stack([weight.T for weight, _ in heads_out]),
        "head.bias": torch.stack([bias for _, bias in heads_out]),
        **text,
    }
    # 2. the transformer
    for theirs, ours in REST.items():
        weights |= {f"{ours}.{kind}": take(f"{theirs}.{kind}") for kind in ("weight", "bias")}
    found = [re.match(r"diff_estimator\.layers\.(\d+)\.", name) for name in state]
    depth = 1 + max((int(match[1]) for match in found if match), default=-1)
    for n in range(depth):
        theirs, ours = f"diff_estimator.layers.{n}", f"transformer.layers.{n}"
        weights |= {f"{ours}.{here}": take(f"{theirs}.{name}") for name, here in LAYER.items()}
        q, k, v = (take(f"{theirs}.self_attn.{part}_proj.weight") for part in "qkv")
        weights[f"{ours}.qkv.weight"] = torch.cat((neighbours(q, heads), neighbours(k, heads), v))
        weights[f"{ours}.feed_in.weight"] = torch.cat([take(f"{theirs}.mlp.{part}_proj.weight") for part in ("gate", "up")])
    if left := sorted(set(state) - taken):
        raise CheckpointError(f"these weights are not a MaskGCT's: {left[0]} is unknown, and {len(left) - 1} more")
    config = {
        "layout": "maskgct",
        "vocabulary": len(text["text.table.weight"]),
        "codebooks": K,
        "size": size,
        "code_dim": None,
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "head_dim": dim // heads,
        "ff_mult": weights["transformer.layers.0.feed_out.weight"].shape[1] / dim if depth else 4.0,
        "activation": "silu",
        "gated": True,
        "norm": "time",
        "context": CONTEXT,
        "text": "aligned" if acoustic else "prefix",
        "text_dim": dim,
        "text_layers": 0,
        "text_network": True,
        "stays": 0,
        "voice": False,
        "unguided": "text" if acoustic else "nothing",
    }
    return config, {f"network.{name}": tensor.contiguous() for name, tensor in weights.items()}


def neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys [heads * head_dim, D] in another order: pairs (j, j + head_dim / 2) become (2j, 2j + 1)."""
    halves = weight.unflatten(0, (heads, 2, -1))  # [heads, 2, head_dim / 2, D]
    return halves.transpose(1, 2).flatten(0, 2)
