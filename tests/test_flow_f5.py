"""F5-TTS fits into the flow backend: the same weights under other names, and the same numbers out.

tests/golden/flow-f5-*.safetensors hold random weights of 16 channels under F5-TTS's names, inputs, and what the package
f5-tts 1.1.22 answers to them (with its prompt and text, and without both).
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tts.audio import MelRecipe
from tts.backends.flow.config import FlowConfig
from tts.backends.flow.model import FlowBackend
from tts.backends.flow.text import lay_plain

F5_MEL = MelRecipe(sample_rate=24_000, hop=256, bands=100, high=12_000.0, padding="center")
V1_BASE = FlowConfig(mel=F5_MEL)
V0_BASE = replace(V1_BASE, rope_heads=1, mask_fillers=False)
SMALL = replace(V1_BASE, dim=768, depth=18, heads=12)

RENAMED = (  # F5-TTS's names, ours
    ("time_embed.time_mlp.", "dit.time.mlp."),
    ("text_embed.text_embed.", "text.table."),
    ("text_embed.text_blocks.", "text.blocks."),
    (".dwconv.", ".depthwise."),
    (".pwconv1.", ".expand."),
    (".pwconv2.", ".contract."),
    ("input_embed.proj.", "dit.input."),
    ("input_embed.conv_pos_embed.conv1d.0.", "dit.position.first."),
    ("input_embed.conv_pos_embed.conv1d.2.", "dit.position.second."),
    ("transformer_blocks.", "dit.blocks."),
    (".attn_norm.linear.", ".modulation."),
    (".attn.to_q.", ".attention.query."),
    (".attn.to_k.", ".attention.key."),
    (".attn.to_v.", ".attention.value."),
    (".attn.to_out.0.", ".attention.out."),
    (".attn.q_norm.", ".attention.query_norm."),
    (".attn.k_norm.", ".attention.key_norm."),
    (".ff.ff.0.0.", ".feed_forward.0."),
    (".ff.ff.2.", ".feed_forward.3."),
    ("norm_out.linear.", "dit.out_modulation."),
    ("proj_out.", "dit.out."),
    ("long_skip_connection.", "dit.long_skip."),
)


def ours(name: str) -> str:
    for theirs, new in RENAMED:
        name = name.replace(theirs, new)
    return name


def f5_keys(D: int, depth: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of F5-TTS's weights (without the constant rotary_embed.inv_freq), width D."""
    keys: dict[str, tuple[int, ...]] = {
        "text_embed.text_embed.weight": (2546, 512),
        "time_embed.time_mlp.0.weight": (D, 256),
        "time_embed.time_mlp.0.bias": (D,),
        "time_embed.time_mlp.2.weight": (D, D),
        "time_embed.time_mlp.2.bias": (D,),
        "input_embed.proj.weight": (D, 712),
        "input_embed.proj.bias": (D,),
        "input_embed.conv_pos_embed.conv1d.0.weight": (D, D // 16, 31),
        "input_embed.conv_pos_embed.conv1d.0.bias": (D,),
        "input_embed.conv_pos_embed.conv1d.2.weight": (D, D // 16, 31),
        "input_embed.conv_pos_embed.conv1d.2.bias": (D,),
        "norm_out.linear.weight": (2 * D, D),
        "norm_out.linear.bias": (2 * D,),
        "proj_out.weight": (100, D),
        "proj_out.bias": (100,),
    }
    for i in range(4):
        block = f"text_embed.text_blocks.{i}"
        keys |= {
            f"{block}.dwconv.weight": (512, 1, 7),
            f"{block}.dwconv.bias": (512,),
            f"{block}.norm.weight": (512,),
            f"{block}.norm.bias": (512,),
            f"{block}.pwconv1.weight": (1024, 512),
            f"{block}.pwconv1.bias": (1024,),
            f"{block}.grn.gamma": (1, 1, 1024),
            f"{block}.grn.beta": (1, 1, 1024),
            f"{block}.pwconv2.weight": (512, 1024),
            f"{block}.pwconv2.bias": (512,),
        }
    for i in range(depth):
        block = f"transformer_blocks.{i}"
        keys |= {f"{block}.attn_norm.linear.weight": (6 * D, D), f"{block}.attn_norm.linear.bias": (6 * D,)}
        for name in ("to_q", "to_k", "to_v"):
            keys |= {f"{block}.attn.{name}.weight": (inner, D), f"{block}.attn.{name}.bias": (inner,)}
        keys |= {
            f"{block}.attn.to_out.0.weight": (D, inner),
            f"{block}.attn.to_out.0.bias": (D,),
            f"{block}.ff.ff.0.0.weight": (2 * D, D),
            f"{block}.ff.ff.0.0.bias": (2 * D,),
            f"{block}.ff.ff.2.weight": (D, 2 * D),
            f"{block}.ff.ff.2.bias": (D,),
        }
    return keys


@pytest.mark.parametrize(
    ("config", "keys", "millions"),
    [
        (V1_BASE, f5_keys(1024, 22, 1024), 335.8),
        (V0_BASE, f5_keys(1024, 22, 1024), 335.8),
        (SMALL, f5_keys(768, 18, 768), 157.9),
    ],
)
def test_f5s_published_weights_fit_by_renaming_alone(
    config: FlowConfig, keys: dict[str, tuple[int, ...]], millions: float
) -> None:
    with torch.device("meta"):
        model = FlowBackend(config)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {ours(k): shape for k, shape in keys.items()}
    counted = sum(p.numel() for p in model.dit.parameters()) + sum(p.numel() for p in model.text.blocks.parameters())
    assert counted / 1e6 == pytest.approx(millions, abs=0.05)  # as F5-TTS counts: without the table of symbols


GOLDEN = {
    "v1": FlowConfig(vocabulary=7, mel=MelRecipe(bands=6), dim=16, depth=2, heads=2, head_dim=8, text_dim=8, text_layers=2),
}
GOLDEN["v0"] = replace(GOLDEN["v1"], rope_heads=1, mask_fillers=False)
GOLDEN["options"] = replace(GOLDEN["v1"], qk_norm=True, long_skip=True)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_weights_answer_as_f5_does(name: str) -> None:
    file = load_file(Path(__file__).parent / "golden" / f"flow-f5-{name}.safetensors")
    given = {key.removeprefix("io."): t for key, t in file.items() if key.startswith("io.")}
    model = FlowBackend(GOLDEN[name]).eval()
    model.load_state_dict({ours(key): t for key, t in file.items() if not key.startswith("io.")})
    B, T, _ = given["x"].shape
    layout = lay_plain(given["ids"], given["lengths"], T)
    for key, dropped in (("conditional", False), ("unconditional", True)):
        with torch.no_grad():
            text = model.text(layout, torch.ones(B, T, dtype=torch.bool), torch.full((B,), dropped))
            condition = model.dit.condition(given["cond"] * (not dropped), text, None)
            answer = model.dit(given["x"], model.dit.modulate(given["t"]), condition)
        assert torch.allclose(answer, given[key], atol=5e-5), (answer - given[key]).abs().max()
