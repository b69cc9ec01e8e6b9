"""MusicGen and AudioGen: the weights of their language models, in audiocraft's names or in transformers', as an `ar` backend.

    audiocraft      "best_state" of state_dict.bin                    emb.0.weight   transformer.layers.0.linear1.weight …
    transformers    MusicgenForCausalLM, …ForConditionalGeneration    ….embed_tokens.0.weight   ….layers.0.fc1.weight …

Their text is T5's last hidden states, which an utterance carries as `content`; unguided rows attend to zeros, as theirs do.
Sources: facebookresearch/audiocraft (audiocraft/models/lm.py), Copet et al. 2023 (arXiv:2306.05284).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tts.errors import CheckpointError
from tts.registry import build

HEAD_DIM = 64  # of every released model
STEREO = (0, 0, 1, 1, 2, 2, 3, 3)  # delays of left and right books in turn

# Names as in audiocraft by the names of transformers, of a layer and of the whole.
LAYER = {
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm_cross",
    "final_layer_norm": "norm2",
    "self_attn.out_proj": "self_attn.out_proj",
    "encoder_attn.out_proj": "cross_attention.out_proj",
    "fc1": "linear1",
    "fc2": "linear2",
}
# Names here by the names of audiocraft.
OURS = {
    "norm1": "attention_norm",
    "norm_cross": "cross_norm",
    "norm2": "feed_norm",
    "self_attn.out_proj": "attention_out",
    "cross_attention.out_proj": "cross_out",
    "linear1": "feed_in",
    "linear2": "feed_out",
}
DESCRIPTION = "condition_provider.conditioners.description.output_proj"


def load(
    state: Mapping[str, Tensor],
    heads: int | None = None,
    rate: int = 50,
    delays: tuple[int, ...] | None = None,
    flavour: str = "",
) -> Any:
    """The backend of a state dict, ready to speak.

    Args:
        state: in audiocraft's or transformers' names. heads: None: channels / 64. rate: frames a second of the codec.
        delays: None: book k by k frames, or the stereo models' where there are eight. flavour: of the codec.
    Raises:
        CheckpointError: a name that is not known, or one that is missing.
    """
    config, weights = convert(state, heads)
    config |= {"rate": str(rate), "flavour": flavour}
    if delays is not None:
        config["delays"] = list(delays)
    backend = build("backend", "ar", config)
    backend.load_state_dict(weights)
    return backend.eval()


def convert(state: Mapping[str, Tensor], heads: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config of an `ar` backend as plain values, and its state dict; sizes are read off the tensors. Raises as `load`."""
    state = dict(state) if "emb.0.weight" in state else from_transformers(state)
    taken: set[str] = set()

    def take(name: str) -> Tensor:
        if name not in state:
            raise CheckpointError(f"these weights are not a MusicGen's: {name} is missing")
        taken.add(name)
        return state[name].float()

    def count(pattern: str) -> int:
        return 1 + max((int(found[1]) for name in state if (found := re.match(pattern, name))), default=-1)

    K, depth = count(r"emb\.(\d+)\.weight$"), count(r"transformer\.layers\.(\d+)\.")
    tables = [take(f"emb.{k}.weight") for k in range(K)]
    rows, dim = tables[0].shape
    weights = {
        "codes.table.weight": torch.cat(tables),
        "head.out.weight": torch.cat([take(f"linears.{k}.weight") for k in range(K)]),
        "trunk.norm.weight": take("out_norm.weight"),
        "trunk.norm.bias": take("out_norm.bias"),
    }
    for n in range(depth):
        theirs, ours = f"transformer.layers.{n}", f"trunk.layers.{n}"
        for name, here in OURS.items():
            for kind in ("weight", "bias") if "norm" in name else ("weight",):
                weights[f"{ours}.{here}.{kind}"] = take(f"{theirs}.{name}.{kind}")
        weights[f"{ours}.qkv.weight"] = take(f"{theirs}.self_attn.in_proj_weight")
        query, keys_values = take(f"{theirs}.cross_attention.in_proj_weight").split([dim, 2 * dim])
        weights |= {f"{ours}.cross_query.weight": query, f"{ours}.cross_keys_values.weight": keys_values}
    if f"{DESCRIPTION}.weight" in state:
        weights |= {f"text_in.{kind}": take(f"{DESCRIPTION}.{kind}") for kind in ("weight", "bias")}
    else:  # a bare decoder attends to vectors of its own width
        weights |= {"text_in.weight": torch.eye(dim), "text_in.bias": torch.zeros(dim)}
    if left := sorted(set(state) - taken):
        raise CheckpointError(f"these weights are not a MusicGen's: {left[0]} is unknown, and {len(left) - 1} more")
    heads = heads if heads is not None else max(1, dim // HEAD_DIM)
    config = {
        "codebooks": K,
        "size": rows - 1,
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "head_dim": dim // heads,
        "ff_mult": weights["trunk.layers.0.feed_in.weight"].shape[0] / dim,
        "positions": "sinusoidal",
        "dropout": 0.0,
        "context": 2048,
        "text": "cross",
        "text_dim": weights["text_in.weight"].shape[1],
        "text_layers": 0,
        "delays": list(STEREO) if len(STEREO) == K else list(range(K)),
        "code_dim": None,
        "voice": False,
        "unguided": "prompt",
    }
    return config, {f"network.{name}": tensor.contiguous() for name, tensor in weights.items()}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Transformers' names to audiocraft's. The text encoder, the codec and the table of positions are left out."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}  # of stacked matrices
    for name, tensor in state.items():
        if name.startswith(("text_encoder.", "audio_encoder.")) or name.endswith("embed_positions.weights"):
            continue
        if name.startswith("enc_to_dec_proj."):
            renamed[f"{DESCRIPTION}.{name.rpartition('.')[2]}"] = tensor
            continue
        short = re.sub(r"^(decoder\.)?(model\.)?(decoder\.)?", "", name)
        if found := re.match(r"embed_tokens\.(\d+)\.weight$", short):
            renamed[f"emb.{found[1]}.weight"] = tensor
        elif found := re.match(r"lm_heads\.(\d+)\.weight$", short):
            renamed[f"linears.{found[1]}.weight"] = tensor
        elif found := re.match(r"layer_norm\.(weight|bias)$", short):
            renamed[f"out_norm.{found[1]}"] = tensor
        elif found := re.match(r"layers\.(\d+)\.(self_attn|encoder_attn)\.([qkv])_proj\.weight$", short):
            attention = "self_attn" if found[2] == "self_attn" else "cross_attention"
            parts.setdefault(f"transformer.layers.{found[1]}.{attention}.in_proj_weight", {})[found[3]] = tensor
        elif (found := re.match(r"layers\.(\d+)\.(.+)\.(weight|bias)$", short)) and found[2] in LAYER:
            renamed[f"transformer.layers.{found[1]}.{LAYER[found[2]]}.{found[3]}"] = tensor
        else:
            raise CheckpointError(f"these weights are not a MusicGen's: {name} is unknown")
    for name, each in parts.items():
        if sorted(each) != ["k", "q", "v"]:
            raise CheckpointError(f"these weights are not a MusicGen's: {name} needs q, k and v, got {sorted(each)}")
        renamed[name] = torch.cat([each[part] for part in "qkv"])
    return renamed
