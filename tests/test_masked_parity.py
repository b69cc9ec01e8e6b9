"""MaskGCT's networks and MAGNeT's as their public code speaks: the same scores, and by the same chances the same codes.

A golden file holds tiny random weights by their public names, what was asked, and what the public code answered:

    maskgct-*    open-mmlab/Amphion d3de90f, models/tts/maskgct, with the transformers 4.41.2 that it asks for
    magnet       facebookresearch/audiocraft 896ec7c, audiocraft/models/lm_magnet.py

Both were run unchanged, on a CPU in float32 under torch 2.11. Scores are those of MaskGCT's `forward`, whose masks and time are
its own draws, and of the first pass of each book in `reverse_diffusion`; and of MAGNeT's `forward` for each book. Codes are
those of `reverse_diffusion` and `generate` with the settings of the public pipelines but for fewer passes, and 6 of 24 codes in
place of 164 of 8192. Their draws were listened to, not replaced: of every code, where it lies in the cumulative probability
that it was drawn from; of every confidence, the uniform below its Gumbel noise. A `Tape` hands these to our decoding. MAGNeT's
text came from its own T5Conditioner around a tiny T5, its narrow attention from its own einsum (`custom`).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tts.backends.masked.network import Given
from tts.backends.masked.rows import give, make_row
from tts.decoding.schedules import counts
from tts.errors import CheckpointError
from tts.frames import Frames, FrameSpec, Plan, Prompt, Tokens, Utterance
from tts.hub import magnet, maskgct
from tts.sampling.philox import Purpose

FOLDER = Path(__file__).parent / "golden"
HEADS, RATE, TOP_K = 2, 50, 6
MASKGCT = ["maskgct-t2s", "maskgct-s2a", "maskgct-s2a-1layer"]
State = dict[str, Tensor]


class Tape:
    """Noise that was written down: draws of codes and of confidences, [books, passes, frames] each."""

    def __init__(self, draws: Tensor, confidences: Tensor | None = None) -> None:
        self.of = {Purpose.MASKED: draws, Purpose.COMMIT: confidences}

    def uniform(self, seeds: Tensor, purpose: Purpose, step: int, position: Tensor, channel: Tensor) -> Tensor:
        tape = self.of[purpose]
        assert tape is not None
        _, frames, passes = torch.broadcast_tensors(seeds, position, channel)
        return tape[step][passes, frames]


def golden(name: str) -> tuple[State, State]:
    """The weights by their public names, and all else."""
    tensors = load_file(FOLDER / f"{name}.safetensors")
    weights = {key.removeprefix("weights."): x for key, x in tensors.items() if key.startswith("weights.")}
    return weights, {key: x for key, x in tensors.items() if not key.startswith("weights.")}


def load(name: str) -> tuple[Any, State]:
    weights, said = golden(name)
    return (magnet if name == "magnet" else maskgct).load(weights, HEADS), said


def asked(backend: Any, said: State, context: Tensor | None = None) -> Utterance:
    """An utterance of what a golden file's generation was asked. context: [K, T] codes, of which some books are given."""
    text, prompt, spec = said["text"], said["prompt"], backend.emits
    P, T = prompt.shape[1], frames_of(said)
    frames = {"codes": Frames(prompt[None], torch.tensor([P]), spec)}
    seeds, seconds, prompt_seconds = torch.zeros(1, dtype=torch.int64), torch.tensor([T / RATE]), torch.tensor([P / RATE])
    if backend.config.text == "cross":
        content = Frames(text.T[None], torch.tensor([len(text)]), FrameSpec("latents", text.shape[1], spec.rate))
        given = Prompt(frames, Tokens.of([[]], ""), prompt_seconds)
        return Utterance(Tokens.of([[]], ""), seeds, given, Plan(seconds), content=content)
    aligned = backend.config.text == "aligned"
    before = P if aligned else 2  # tokens of the prompt; in a prefix it does not matter how many
    n = len(text) - before
    own = Tokens(text[None, :before], torch.tensor([before]), "")
    given = Prompt(frames, own, prompt_seconds, torch.ones(1, before, dtype=torch.int64))
    plan = Plan(seconds, torch.full((1, n), 1 / RATE, dtype=torch.float64) if aligned else None)
    known = Frames(context[None], torch.tensor([T]), spec) if context is not None else None
    return Utterance(Tokens(text[None, before:], torch.tensor([n]), ""), seeds, given, plan, context=known)


def frames_of(said: State) -> int:
    return said["codes" if "codes" in said else "codes_max"].shape[1]


def told(backend: Any, said: State) -> tuple[Tensor, Given]:
    """Masked cells [1, K, T] and what two rows are told, of which the second has no condition."""
    row = make_row(backend.config, asked(backend, said), 0, 0, torch.device("cpu"))
    cells, _, given = give(backend.network, [row], guided=True)
    return cells, given


# --------------------------------------------------------------------------------------------------------- the scores


@pytest.mark.parametrize("name", MASKGCT)
@torch.no_grad()
def test_scores_of_whole_rows_are_those_of_maskgcts_own_forward(name: str) -> None:
    backend, said = load(name)
    network, cells, text = backend.network, said["cells"].view(1, -1, said["cells"].shape[-1]), said["text"][None]
    N = cells.shape[2]
    read = network.read(text, torch.ones_like(text, dtype=torch.bool))
    nothing, real = cells[:, :, :0], torch.ones(1, N, dtype=torch.bool)
    if name == "maskgct-t2s":
        given = Given(nothing, real, prefix=network.lead(read))
    else:
        given = Given(nothing, real, text=network.place_text(read, torch.ones(1, N, dtype=torch.int64), N))
    book = int(said.get("book", torch.tensor(0)))
    hidden = network.hidden(cells, book, said["t"], given)
    assert bool((cells[0, book] == backend.config.size).any())
    assert torch.allclose(network.logits(hidden, book)[0], said["logits"], atol=1e-4)


@pytest.mark.parametrize("name", MASKGCT)
@torch.no_grad()
def test_scores_of_each_books_first_pass_are_maskgcts_with_and_without_condition(name: str) -> None:
    backend, said = load(name)
    cells, given = told(backend, said)
    for book, expected in enumerate(said["first"]):
        cells[0, :book] = said["codes"][:book]
        hidden = backend.network.hidden(cells.expand(2, -1, -1), book, torch.ones(2), given)
        assert torch.allclose(backend.network.logits(hidden, book), expected, atol=1e-4)


@torch.no_grad()
def test_scores_of_every_book_are_magnets_with_and_without_condition() -> None:
    backend, said = load("magnet")
    _, given = told(backend, said)
    for book, (cells, expected) in enumerate(zip(said["cells"], said["logits"], strict=True)):
        hidden = backend.network.hidden(cells.expand(2, -1, -1), book, torch.zeros(2), given)
        assert torch.allclose(backend.network.logits(hidden, book), expected, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------- the codes


def settings_of(name: str, said: State) -> dict[str, Any]:
    own = maskgct.T2S_SETTINGS if name == "maskgct-t2s" else maskgct.S2A_SETTINGS
    return {**own, "top_k": TOP_K, "steps": tuple(said["steps"].tolist())}


@pytest.mark.parametrize("name", MASKGCT)
def test_by_the_same_chances_the_codes_are_maskgcts(name: str) -> None:
    backend, said = load(name)
    backend.noise = Tape(*said["tape"])
    made = backend.generate(asked(backend, said), settings_of(name, said))
    assert torch.equal(made.data[0], said["codes"])


def test_later_books_are_maskgcts_where_the_first_is_another_networks() -> None:
    backend, said = load("maskgct-s2a")
    backend.noise = Tape(*said["later_tape"])
    settings = {**settings_of("maskgct-s2a", said), "given_books": 1}
    made = backend.generate(asked(backend, said, said["later"]), settings)
    assert torch.equal(made.data[0], said["later"])
    assert not torch.equal(said["later"], said["codes"])


@pytest.mark.parametrize(("join", "theirs"), [("max", "max"), ("product", "prod")])
def test_by_the_same_chances_the_codes_are_magnets(join: str, theirs: str) -> None:
    backend, said = load("magnet")
    backend.noise = Tape(said[f"tape_{theirs}"])
    settings = {**magnet.SETTINGS, "steps": tuple(said["steps"].tolist()), "join": join}
    made = backend.generate(asked(backend, said), settings)
    assert torch.equal(made.data[0], said[f"codes_{theirs}"])


def test_magnet_counts_in_float32() -> None:
    assert counts(14, 10, "magnet") == (13, 13, 12, 10, 8, 6, 4, 2, 1, 0)  # of cos(pi / 3) * 14 it keeps 6


# ----------------------------------------------------------------------------------------------------------- the doors


@pytest.mark.parametrize("name", [*MASKGCT, "magnet"])
def test_the_settings_of_the_public_models_are_settings(name: str) -> None:
    settings = {"maskgct-t2s": maskgct.T2S_SETTINGS, "magnet": magnet.SETTINGS}.get(name, maskgct.S2A_SETTINGS)
    assert load(name)[0].settings_type.of(settings).guidance > 1


def test_other_names_are_told() -> None:
    state, _ = golden("maskgct-s2a")
    with pytest.raises(CheckpointError, match=r"to_logits\.1\.bias is missing"):
        maskgct.convert({name: x for name, x in state.items() if name != "to_logits.1.bias"}, HEADS)
    with pytest.raises(CheckpointError, match="other is unknown"):
        maskgct.convert(state | {"other": torch.zeros(1)}, HEADS)
    state, _ = golden("magnet")
    with pytest.raises(CheckpointError, match=r"out_norm\.weight is missing"):
        magnet.convert({name: x for name, x in state.items() if name != "out_norm.weight"}, HEADS)
