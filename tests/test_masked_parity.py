"""MaskGCT's two networks and MAGNeT's in our words: the same scores and the same codes as a slow restatement of each.

The restatements below read the weights by their public names, with a loop for every head, and no batch. The golden files hold
tiny weights, what was asked and what the restatements said; MYNAH_GOLDEN=write in the environment makes them anew.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tts.backends.masked.rows import give, make_row
from tts.errors import CheckpointError
from tts.frames import Frames, FrameSpec, Plan, Prompt, Tokens, Utterance
from tts.hub import magnet, maskgct

FOLDER = Path(__file__).parent / "golden"
D, HEADS, PHONES, V, K, P, T = 16, 2, 9, 11, 3, 4, 12
State = dict[str, Tensor]
GREEDY = {"temperature": 0.0, "top_k": None, "noise": 0.0}


# ------------------------------------------------------------------------------------------------- the public names


def maskgct_state(acoustic: bool, depth: int = 2) -> State:
    generator = torch.Generator().manual_seed(5 + acoustic)

    def of(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * (0.25 if len(shape) > 1 else 0.2)

    state = {"mask_emb.weight": of(1, D)}
    if acoustic:
        state |= {"layer_emb.weight": of(K, D), "cond_emb.weight": of(PHONES, D)}
        for k in range(K):
            state |= {f"token_emb.{k}.weight": of(V, D), f"to_logits.{k}.weight": of(V, D), f"to_logits.{k}.bias": of(V)}
        state["diff_estimator.embed_tokens.weight"] = torch.zeros(0, 4)
    else:
        state |= {"phone_emb.weight": of(PHONES, D), "cond_emb.weight": of(V, D)}
        state |= {"to_logit.weight": of(V, D), "to_logit.bias": of(V)}
    for name in ("diff_step_mlp", "cond_mlp"):
        for part, shape in (("0", (4 * D, D)), ("2", (D, 4 * D))):
            state |= {f"diff_estimator.{name}.{part}.weight": of(*shape), f"diff_estimator.{name}.{part}.bias": of(shape[0])}
    norms = ["norm"] + [f"layers.{n}.{x}" for n in range(depth) for x in ("input_layernorm", "post_attention_layernorm")]
    for name in norms:
        state |= {f"diff_estimator.{name}.to_weight.weight": of(D, D), f"diff_estimator.{name}.to_weight.bias": of(D)}
    for n in range(depth):
        layer = f"diff_estimator.layers.{n}"
        state |= {f"{layer}.self_attn.{x}_proj.weight": of(D, D) for x in "qkvo"}
        state |= {f"{layer}.mlp.{x}_proj.weight": of(4 * D, D) for x in ("gate", "up")}
        state[f"{layer}.mlp.down_proj.weight"] = of(D, 4 * D)
    return state


def magnet_state(depth: int = 2, text_dim: int = 6) -> State:
    generator = torch.Generator().manual_seed(9)

    def of(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * (0.25 if len(shape) > 1 else 0.2)

    state = {f"emb.{k}.weight": of(V + 1, D) for k in range(K)} | {f"linears.{k}.weight": of(V, D) for k in range(K)}
    for n in range(depth):
        layer = f"transformer.layers.{n}"
        for name in ("norm1", "norm_cross", "norm2"):
            state |= {f"{layer}.{name}.weight": 1 + of(D), f"{layer}.{name}.bias": of(D)}
        for name in ("self_attn", "cross_attention"):
            state |= {f"{layer}.{name}.in_proj_weight": of(3 * D, D), f"{layer}.{name}.out_proj.weight": of(D, D)}
        state |= {f"{layer}.linear1.weight": of(4 * D, D), f"{layer}.linear2.weight": of(D, 4 * D)}
    description = "condition_provider.conditioners.description.output_proj"
    state |= {f"{description}.weight": of(D, text_dim), f"{description}.bias": of(D)}
    return state | {"out_norm.weight": 1 + of(D), "out_norm.bias": of(D)}


# ------------------------------------------------------------------------------------------------ the restatements


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """q [N, D], k and v [M, D], seen [N, M] bool, head by head."""
    heads = []
    for h in range(HEADS):
        cut = slice(h * D // HEADS, (h + 1) * D // HEADS)
        scores = q[:, cut] @ k[:, cut].T / math.sqrt(D // HEADS)
        scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
        heads.append(scores.softmax(-1) @ v[:, cut])
    return torch.cat(heads, -1)


def turn(x: Tensor) -> Tensor:
    """Rotary positions of x [N, D] in Llama's layout: channel j of a head and j + half are a pair."""
    size = D // HEADS
    half = size // 2
    out = x.clone()
    for n in range(len(x)):
        for h in range(HEADS):
            for j in range(half):
                angle = n / 10_000 ** (2 * j / size)
                a, b = x[n, h * size + j], x[n, h * size + j + half]
                out[n, h * size + j] = a * math.cos(angle) - b * math.sin(angle)
                out[n, h * size + j + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def mlp(w: State, name: str, x: Tensor) -> Tensor:
    x = F.silu(x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"])
    return x @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]


def llama(w: State, x: Tensor, t: float) -> Tensor:
    """MaskGCT's transformer on x [N, D] at time t."""
    half = D // 2
    angles = torch.tensor([t * math.exp(-math.log(10_000) * j / (half - 1)) for j in range(half)])
    time = mlp(w, "diff_estimator.diff_step_mlp", torch.cat((angles.sin(), angles.cos()))[None])[0]

    def norm(name: str, x: Tensor) -> Tensor:
        scale = w[f"diff_estimator.{name}.to_weight.weight"] @ time + w[f"diff_estimator.{name}.to_weight.bias"]
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * scale

    for n in range(2):
        layer = f"diff_estimator.layers.{n}"
        y = norm(f"layers.{n}.input_layernorm", x)
        q, k, v = (y @ w[f"{layer}.self_attn.{part}_proj.weight"].T for part in "qkv")
        x = x + attention(turn(q), turn(k), v) @ w[f"{layer}.self_attn.o_proj.weight"].T
        y = norm(f"layers.{n}.post_attention_layernorm", x)
        gated = F.silu(y @ w[f"{layer}.mlp.gate_proj.weight"].T) * (y @ w[f"{layer}.mlp.up_proj.weight"].T)
        x = x + gated @ w[f"{layer}.mlp.down_proj.weight"].T
    return norm("norm", x)


def t2s_hidden(w: State, cells: Tensor, _book: int, t: float, text: Tensor, prompt: Tensor, conditional: bool) -> Tensor:
    """cells [1, T], V where masked; text: phones of prompt and target."""
    table = torch.cat((w["cond_emb.weight"], w["mask_emb.weight"]))
    x = table[cells[0]]
    if conditional:
        x = torch.cat((mlp(w, "diff_estimator.cond_mlp", w["phone_emb.weight"][text]), table[prompt[0]], x))
    return llama(w, x, t)[-cells.shape[1] :]


def s2a_hidden(w: State, cells: Tensor, book: int, t: float, text: Tensor, prompt: Tensor, conditional: bool) -> Tensor:
    """cells [K, T]; text: the semantic codes of prompt and target, one a frame."""
    T = cells.shape[1]
    cells = torch.cat((prompt, cells), 1) if conditional else cells
    semantic = text if conditional else text[-T:]
    x = torch.zeros(cells.shape[1], D)
    for k in range(K):
        x = x + torch.cat((w[f"token_emb.{k}.weight"], w["mask_emb.weight"]))[cells[k]]
    x = x + mlp(w, "diff_estimator.cond_mlp", w["cond_emb.weight"][semantic] + w["layer_emb.weight"][book])
    return llama(w, x, t)[-T:]


def magnet_hidden(w: State, cells: Tensor, book: int, _t: float, text: Tensor, prompt: Tensor, conditional: bool) -> Tensor:
    """cells [K, T]; text [L, C]."""
    T = cells.shape[1]
    cells = torch.cat((prompt, cells), 1)
    N, half = cells.shape[1], D // 2
    description = "condition_provider.conditioners.description.output_proj"
    memory = (text @ w[f"{description}.weight"].T + w[f"{description}.bias"]) * conditional
    angles = torch.tensor([[n / 10_000 ** (j / (half - 1)) for j in range(half)] for n in range(N)])
    x = sum(w[f"emb.{k}.weight"][cells[k]] for k in range(K)) + torch.cat((angles.cos(), angles.sin()), 1)
    frames = torch.arange(N)
    seen = (frames[:, None] - frames).abs() <= 5 if book else None

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    for n in range(2):
        layer = f"transformer.layers.{n}"
        q, k, v = (norm(f"{layer}.norm1", x) @ w[f"{layer}.self_attn.in_proj_weight"].T).chunk(3, -1)
        x = x + attention(q, k, v, seen) @ w[f"{layer}.self_attn.out_proj.weight"].T
        wq, wk, wv = w[f"{layer}.cross_attention.in_proj_weight"].chunk(3)
        y = attention(norm(f"{layer}.norm_cross", x) @ wq.T, memory @ wk.T, memory @ wv.T)
        x = x + y @ w[f"{layer}.cross_attention.out_proj.weight"].T
        x = x + F.gelu(norm(f"{layer}.norm2", x) @ w[f"{layer}.linear1.weight"].T) @ w[f"{layer}.linear2.weight"].T
    return norm("out_norm", x)[-T:]


def head(w: State, hidden: Tensor, book: int) -> Tensor:
    if "linears.0.weight" in w:
        return hidden @ w[f"linears.{book}.weight"].T
    name = f"to_logits.{book}" if "layer_emb.weight" in w else "to_logit"
    return hidden @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def decode_maskgct(
    hidden: Callable[..., Tensor], w: State, books: int, text: Tensor, prompt: Tensor, steps: list[int]
) -> Tensor:
    """Greedy, guided by 2.5 before the head with 0.75 of the spread set back: codes [books, T]."""
    cells = torch.full((books, T), V)
    for k in range(books):
        S = steps[k]
        for i in range(S):
            t = 1 - i / S
            c, u = (hidden(w, cells, k, t, text, prompt, which) for which in (True, False))
            guided = c + 2.5 * (c - u)
            logits = head(w, 0.75 * guided * c.std() / guided.std() + 0.25 * guided, k)
            masked = cells[k] == V
            drawn, sure = logits.argmax(-1), logits.softmax(-1).amax(-1)
            order = sure.masked_fill(~masked, 9.0).argsort(stable=True).tolist()
            left = math.floor(round(math.sin(math.pi / 2 * (1 - (i + 1) / S)) * T, 9))
            cells[k] = torch.where(masked, drawn, cells[k])
            cells[k, order[:left]] = V
    return cells


def decode_magnet(w: State, text: Tensor, prompt: Tensor, steps: list[int]) -> Tensor:
    """Greedy, spans of 3, guidance from 10 to 1: codes [K, T]."""
    cells = torch.full((K, T), V)
    for k in range(K):
        scores = torch.zeros(T // 3)
        masked = torch.ones(T // 3, dtype=torch.bool)
        for i in range(steps[k]):
            p = math.cos(math.pi / 2 * i / (steps[k] - 1))
            if i:
                worst = scores.masked_fill(~masked, -1e4).sort(descending=True, stable=True).indices
                masked = torch.zeros_like(masked)
                masked[worst[: max(math.floor(p * (T // 3)), 1)]] = True
            cells[k] = cells[k].masked_fill(masked.repeat_interleave(3), V)
            c, u = (head(w, magnet_hidden(w, cells, k, 0, text, prompt, which), k) for which in (True, False))
            logits = u + (10 * p + 1 - p) * (c - u)
            cells[k] = torch.where(cells[k] == V, logits.argmax(-1), cells[k])
            scores = 1 - logits.softmax(-1).amax(-1).view(-1, 3).amax(-1)
    return cells


# ------------------------------------------------------------------------------------------------------- the tests


def make(name: str) -> dict[str, Any]:
    """Weights, what is asked and the restatement's answers."""
    generator = torch.Generator().manual_seed(1)
    books = 1 if name == "maskgct-t2s" else K
    prompt = torch.randint(0, V, (books, P), generator=generator)
    cells = torch.randint(0, V + 1, (books, T), generator=generator)
    book = 0 if books == 1 else 1
    cells[book + 1 :] = V
    if name == "magnet":
        w, text, hidden = magnet_state(), torch.randn(5, 6, generator=generator), magnet_hidden
        codes = decode_magnet(w, text, prompt, [4, 2, 2])
    else:
        acoustic = name == "maskgct-s2a"
        w, hidden = maskgct_state(acoustic), s2a_hidden if acoustic else t2s_hidden
        text = torch.randint(0, PHONES, (P + T if acoustic else 7,), generator=generator)
        codes = decode_maskgct(hidden, w, books, text, prompt, [5, 3, 1])
    logits = [head(w, hidden(w, cells, book, 0.3, text, prompt, which), book) for which in (True, False)]
    return {"weights": w, "text": text, "prompt": prompt, "cells": cells, "logits": torch.stack(logits), "codes": codes}


def golden(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.safetensors"
    if os.environ.get("MYNAH_GOLDEN") == "write":
        made = make(name)
        weights = {f"weights.{key}": x for key, x in made.pop("weights").items()}
        save_file({key: x.contiguous() for key, x in (made | weights).items()}, path)
    tensors = load_file(path)
    weights = {key.removeprefix("weights."): x for key, x in tensors.items() if key.startswith("weights.")}
    return {key: x for key, x in tensors.items() if not key.startswith("weights.")} | {"weights": weights}


def load(name: str, weights: State) -> Any:
    return (magnet if name == "magnet" else maskgct).load(weights, HEADS)


def asked(name: str, backend: Any, text: Tensor, prompt: Tensor) -> Utterance:
    """What the tensors of a golden file ask."""
    spec = backend.emits
    frames = {"codes": Frames(prompt[None], torch.tensor([P]), spec)}
    seeds, seconds = torch.zeros(1, dtype=torch.int64), torch.tensor([T / 50])
    if name == "magnet":
        content = Frames(text.T[None], torch.tensor([len(text)]), FrameSpec("latents", text.shape[1], spec.rate))
        given = Prompt(frames, Tokens.of([[]], ""), torch.tensor([P / 50]))
        return Utterance(Tokens.of([[]], ""), seeds, given, Plan(seconds), content=content)
    before = P if name == "maskgct-s2a" else 2
    tokens = Tokens(text[None, before:], torch.tensor([len(text) - before]), "")
    given = Prompt(
        frames, Tokens(text[None, :before], torch.tensor([before]), ""), torch.tensor([P / 50]), torch.ones(1, before).long()
    )
    each = torch.full((1, len(text) - before), 1 / 50, dtype=torch.float64) if name == "maskgct-s2a" else None
    return Utterance(tokens, seeds, given, Plan(seconds, each))


NAMES = ["maskgct-t2s", "maskgct-s2a", "magnet"]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_scores_are_those_of_the_golden_file_with_and_without_condition(name: str) -> None:
    said = golden(name)
    backend = load(name, said["weights"])
    row = make_row(backend.config, asked(name, backend, said["text"], said["prompt"]), 0, 0, torch.device("cpu"))
    _, _, given = give(backend.network, [row], guided=True)
    book = 0 if name == "maskgct-t2s" else 1
    cells = said["cells"].expand(2, -1, -1)
    hidden = backend.network.hidden(cells, book, torch.full((2,), 0.3), given)
    assert torch.allclose(backend.network.logits(hidden, book), said["logits"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_codes_are_those_of_the_golden_file(name: str) -> None:
    said = golden(name)
    backend = load(name, said["weights"])
    if name == "magnet":
        settings = {**magnet.SETTINGS, **GREEDY, "top_p": None, "steps": (4, 2, 2)}
    else:
        own = maskgct.T2S_SETTINGS if name == "maskgct-t2s" else maskgct.S2A_SETTINGS
        settings = {**own, **GREEDY, "steps": (5, 3, 1)[: len(said["codes"])]}
    made = backend.generate(asked(name, backend, said["text"], said["prompt"]), settings)
    assert torch.equal(made.data[0], said["codes"])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_golden_file_is_what_the_restatement_says(name: str) -> None:
    said, made = golden(name), make(name)
    assert torch.equal(said["codes"], made["codes"]) and torch.allclose(said["logits"], made["logits"], atol=1e-4)
    assert all(torch.equal(x, made["weights"][key]) for key, x in said["weights"].items())


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_the_public_models_are_settings(name: str) -> None:
    settings = {"maskgct-t2s": maskgct.T2S_SETTINGS, "maskgct-s2a": maskgct.S2A_SETTINGS, "magnet": magnet.SETTINGS}[name]
    backend = load(name, golden(name)["weights"])
    assert backend.settings_type.of(settings).guidance > 1


def test_other_names_are_told() -> None:
    state = maskgct_state(True)
    with pytest.raises(CheckpointError, match=r"to_logits\.1\.bias is missing"):
        maskgct.convert({name: x for name, x in state.items() if name != "to_logits.1.bias"}, HEADS)
    with pytest.raises(CheckpointError, match="other is unknown"):
        maskgct.convert(state | {"other": torch.zeros(1)}, HEADS)
    with pytest.raises(CheckpointError, match=r"out_norm\.weight is missing"):
        magnet.convert({name: x for name, x in magnet_state().items() if name != "out_norm.weight"}, HEADS)
