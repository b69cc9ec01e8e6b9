"""Networks beside their peers', of equal architecture and random weights: a codec language model, a flow's transformer."""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from harness import Goal, Pace, Row, Run, absent, call, interleave, peer, threads
from torch import Tensor

SHAPES = {"512 x 8": (512, 8, 8), "1024 x 12": (1024, 12, 16)}  # hidden size x layers, heads
TEXT = 20  # vectors of text that every step attends to
HELD = 100  # positions in the cache before the first step that is timed
BOOKS, CODES = 4, 2048
STEPS = 12  # a turn has at least so many, as a cache is filled before them


# ----------------------------------------------------------------------------------------- a codec language model


def ar(pace: Pace = Pace(), threads_: int = 2, shapes: dict[str, tuple[int, int, int]] = SHAPES) -> list[Row]:
    """A step of MusicGen's decoder, one item, a text to attend to: ours, ours in eight bits, and transformers'."""
    transformers, rows = peer("transformers"), []
    if transformers is None:
        return [Row("step of a codec language model", note=absent("transformers"))]
    for name, shape in shapes.items():
        with threads(threads_), torch.no_grad():
            spent = interleave(steps(transformers, *shape), pace, 1e3)
        theirs, what = {"transformers": spent["transformers"]}, f"MusicGen's decoder, {name}, {BOOKS} books of {CODES}"
        rows.append(Row(what, "ms", {"ours": spent["ours"], **theirs}, Goal(1.1, "transformers")))
        if "int8" in spent:
            rows.append(Row(f"{what}, ours int8", "ms", {"ours": spent["int8"], **theirs}, Goal(3.0, "transformers")))
    return rows


def steps(transformers: ModuleType, hidden: int, layers: int, heads: int) -> dict[str, Run]:
    """Each begins anew with a cache of HELD positions, and then takes so many steps, which alone are timed."""
    from tts.hub.audiocraft import load

    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * hidden}
    ids = {"vocab_size": CODES, "num_codebooks": BOOKS, "pad_token_id": CODES, "bos_token_id": CODES}
    theirs = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**sizes, **ids)).eval()
    weights = {name: x.clone() for name, x in theirs.state_dict().items() if not name.endswith("embed_positions.weights")}
    network = load(weights, heads).network
    text, codes = torch.randn(1, TEXT, hidden), torch.randint(0, CODES, (1, BOOKS))
    nothing = torch.full((1, BOOKS, HELD), CODES)

    def ours(network: Any) -> Run:
        def run(n: int) -> float:
            n = max(n, STEPS)
            read = network.read_vectors(text, torch.ones(1, TEXT).bool())
            _, cache = network.start(nothing, torch.tensor([HELD]), None, read, HELD + n + 1)
            started = time.perf_counter()
            for _ in range(n):
                network.step(codes, None, cache)
            return (time.perf_counter() - started) / n

        return run

    def others(n: int) -> float:
        n, given = max(n, STEPS), {"encoder_hidden_states": text, "use_cache": True}
        past = theirs(input_ids=nothing.view(BOOKS, HELD), **given).past_key_values
        started = time.perf_counter()
        for _ in range(n):
            past = theirs(input_ids=codes.view(BOOKS, 1), past_key_values=past, **given).past_key_values
        return (time.perf_counter() - started) / n

    runs: dict[str, Run] = {"ours": ours(network), "transformers": others}
    if (quantize := quantizer()) is not None:
        runs["int8"] = ours(quantize(copy.deepcopy(network), 8))
    return runs


def quantizer() -> Any | None:
    """What makes weights small; None where this version has no such thing."""
    return getattr(peer("tts.nn.quantize"), "quantize", None)


# ------------------------------------------------------------------------------------------- a flow's transformer

RENAMED = (  # names of F5-TTS, ours
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
    (".ff.ff.0.0.", ".feed_forward.0."),
    (".ff.ff.2.", ".feed_forward.3."),
    ("norm_out.linear.", "dit.out_modulation."),
    ("proj_out.", "dit.out."),
)


def dit(pace: Pace = Pace(5, 0.0, 30.0), threads_: int = 2, frames: int = 940, depth: int = 4, heads: int = 16) -> list[Row]:
    """A forward of F5-TTS v1 Base's transformer, `depth` of its 22 blocks: all that depends on x or t; the text is known."""
    theirs = f5(depth, heads)
    if theirs is None:
        return [Row("forward of F5-TTS's transformer", note=absent("f5-tts"))]
    quantize, bf16 = quantizer(), copy.deepcopy(theirs).bfloat16()
    with threads(threads_), torch.inference_mode():
        ours, x, cond, ids, t = f5_of_ours(theirs, depth, heads, frames)
        runs = {
            "ours": ours_forward(ours, x, cond, ids, t),
            "f5-tts": lambda: theirs(x, cond, ids, t, cache=True),
            "f5-tts bf16": lambda: bf16(x.bfloat16(), cond.bfloat16(), ids, t.bfloat16(), cache=True),
        }
        if quantize is not None:
            narrowed = copy.deepcopy(ours)
            quantize(narrowed.dit.blocks, 16)
            runs["ours bf16"] = ours_forward(narrowed, x, cond, ids, t)
        said = {name: run().float() for name, run in runs.items()}
        spent = interleave({name: call(run) for name, run in runs.items()}, pace, 1e3)

    def error(name: str, of: str) -> str:
        return f"relative error {float((said[name] - said[of]).norm() / said[of].norm()):.1g}"

    what = f"F5-TTS v1 Base's transformer, {depth} of 22 blocks, T = {frames}"
    rows = [
        Row(
            f"{what}, fp32",
            "ms",
            {name: spent[name] for name in ("ours", "f5-tts")},
            Goal(1.0, "f5-tts"),
            error("ours", "f5-tts"),
        )
    ]
    if "ours bf16" in spent:
        beside = {"ours": spent["ours bf16"], "f5-tts bf16": spent["f5-tts bf16"], "f5-tts": spent["f5-tts"]}
        note = f"{error('ours bf16', 'ours')}, theirs {error('f5-tts bf16', 'f5-tts').split()[-1]}"
        rows.append(Row(f"{what}, bf16", "ms", beside, Goal(1.5, "f5-tts"), note))
    return rows


def f5(depth: int, heads: int) -> Any | None:
    """The package's own class with random weights; None where it is not installed. Its package imports what trains, too."""
    spec = find_spec("f5_tts")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = ModuleType("f5_tts.model")
    package.__path__ = [str(Path(next(iter(spec.submodule_search_locations))) / "model")]
    sys.modules.setdefault("f5_tts.model", package)
    module = peer("f5_tts.model.backbones.dit")
    if module is None:
        return None
    sizes = {"dim": 64 * heads, "depth": depth, "heads": heads, "dim_head": 64, "ff_mult": 2, "mel_dim": 100}
    model = module.DiT(**sizes, text_num_embeds=2545, text_dim=512, conv_layers=4).eval()
    for name, weight in model.named_parameters():  # what is zero at the start would make an output of zeros
        if "attn_norm" in name or "norm_out" in name or "proj_out" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model


def f5_of_ours(theirs: Any, depth: int, heads: int, T: int) -> tuple[Any, Tensor, Tensor, Tensor, Tensor]:
    """The same weights in our flow backend, and an input: x, cond [1, T, 100], ids [1, L], t [1]."""
    from tts.audio import MelRecipe
    from tts.backends.flow.config import FlowConfig
    from tts.backends.flow.model import FlowBackend

    mel = MelRecipe(sample_rate=24_000, hop=256, bands=100, high=12_000.0, padding="center")
    model = FlowBackend(FlowConfig(mel=mel, dim=64 * heads, depth=depth, heads=heads)).eval()
    weights = {renamed(name): x for name, x in theirs.state_dict().items() if not name.startswith("rotary_embed")}
    model.load_state_dict(weights)
    return model, torch.randn(1, T, 100), torch.randn(1, T, 100), torch.randint(0, 2545, (1, T // 6)), torch.tensor([0.4])


def renamed(name: str) -> str:
    for theirs, new in RENAMED:
        name = name.replace(theirs, new)
    return name


def ours_forward(model: Any, x: Tensor, cond: Tensor, ids: Tensor, t: Tensor, narrow: bool = False) -> Any:
    """What a step of the solver asks for; unlike in a solve, the modulation of its time is made for it alone.

    narrow: all of the transformer in bfloat16, with a modulation made before, as a solve makes those of all its times.
    """
    from tts.backends.flow.text import lay_plain

    B, T, _ = x.shape
    everything = torch.ones(B, T, dtype=torch.bool, device=x.device)
    layout = lay_plain(ids, torch.full((B,), ids.shape[1], device=x.device), T)
    text = model.text(layout, everything, torch.zeros(B, dtype=torch.bool, device=x.device))
    condition = model.dit.condition(cond, text, None)
    if not narrow:
        return lambda: model.dit(x, model.dit.modulate(t), condition)
    made = model.dit.modulate(t)
    made, dit = replace(made, blocks=made.blocks.bfloat16(), out=made.out.bfloat16()), copy.deepcopy(model.dit).bfloat16()
    x, condition = x.bfloat16(), condition.bfloat16()
    return lambda: dit(x, made, condition)
