"""The recipe of the codec over waveforms: pure batches with their labels, what is minimised by whom, and a loss that falls."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from tts.audio import MelRecipe
from tts.config import load_config
from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.asr import IGNORED
from tts.train.loop import LoopConfig
from tts.train.run import WaveCodecTraining
from tts.train.waveform_codec import WaveCodecRecipe, WaveCodecTask

RECIPE = load_config(WaveCodecTraining, ROOT / "configs/tiny/waveform-codec.yaml").recipe
WORD = [PHONES.id(symbol) for symbol in (" ", "k", "ˈæ", "t")]
CROP = 12 * 320  # samples


class Recordings:
    """Clips of 20, 40 and 5 frames and one of a corpus that is no target (it would be heard as NaN).

    Sample n of a clip tells which frame it is of, and so does the label of that frame; the second clip has no labels.
    """

    folder = Path("recordings")
    alignment = "known"

    def __init__(self) -> None:
        kinds = (("toy", 20), ("toy", 40), ("toy", 5), ("librispeech-dev-clean", 40))
        self.items = [SimpleNamespace(corpus=corpus, frames=T, samples=T * 320) for corpus, T in kinds]
        self.tables = {"table": PHONES.identity, "mel": MelRecipe().spec.flavour}

    def item(self, i: int) -> SimpleNamespace:
        return self.items[i]

    def audio(self, i: int) -> torch.Tensor:
        if i == 3:
            return torch.full((self.items[i].samples,), math.nan)
        place = torch.arange(self.items[i].samples)
        loud = 1 + place // 320 // (self.items[i].frames // 4)  # 1 to 4: which of the four phones is said
        return 0.1 * loud * torch.sin(place * 0.1 * loud)

    def tokens(self, i: int) -> torch.Tensor:
        return torch.tensor(WORD)

    def token_frames(self, i: int) -> torch.Tensor:
        return torch.full((4,), self.items[i].frames // 4)

    def score(self, i: int) -> float:
        return -9.0 if i == 1 else -1.0


class Valid(Recordings):
    def __init__(self) -> None:
        super().__init__()
        self.items = self.items[:3]


def task(recipe: WaveCodecRecipe = RECIPE) -> WaveCodecTask:
    return WaveCodecTask(recipe, Recordings(), Valid())  # type: ignore[arg-type]


def steps(made: WaveCodecTask, count: int, lr: float = 2e-3) -> list[dict[str, torch.Tensor]]:
    """Train for some steps as the loop does; what each has logged."""
    optimizers = made.optimizers(LoopConfig(steps=count, lr=lr))
    for module in made.modules().values():
        module.train()

    def minimise(loss: torch.Tensor, name: str) -> torch.Tensor:
        optimizer = optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    logged = []
    for step in range(count):
        torch.manual_seed(step)
        logged.append(dict(made.update(made.batch(step), step, minimise)))
    for module in made.modules().values():
        module.eval()
    return logged


def test_a_batch_is_a_pure_function_of_its_step():
    first, again = task().batch(3), task().batch(3)
    assert first["samples"].shape == (2, CROP) and first["labels"].shape == (2, 12)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["samples"], task().batch(4)["samples"])


def test_labels_are_those_of_the_samples_beside_them():
    made = task(replace(RECIPE, gain_db=0.0, lowpass_share=0.0))
    ids = [PHONES.to_recognizer[token] for token in WORD]
    known = 0
    for step in range(20):
        batch = made.batch(step)
        for samples, labels in zip(batch["samples"], batch["labels"], strict=True):
            if (labels == IGNORED).all():
                continue
            known += 1
            loud = samples.unflatten(0, (12, 320)).abs().amax(1).mul(10).round().long() - 1  # of each frame, which phone
            assert labels.tolist() == [max(0, ids[k]) for k in loud.tolist()]
    assert 0 < known < 40


def test_excluded_corpora_and_short_clips_are_no_targets():
    made = task()
    assert made.clips == [0, 1] and len(made.valid) == 2
    batches = [made.batch(step)["samples"] for step in range(10)]
    assert all(torch.isfinite(samples).all() and samples.abs().max() <= 1 for samples in batches)


def test_judges_and_reader_are_aids_that_may_be_left_out():
    assert set(task().modules()) == {"codec", "vocoder", "reader", "judges"}
    silent = replace(RECIPE.adversarial, weight=0.0)
    alone = task(replace(RECIPE, adversarial=silent, recognition=0.0))
    assert set(alone.modules()) == {"codec", "vocoder"} == set(task().modules()) - task().aids()
    (logged,) = steps(alone, 1)
    assert not {"phones", "judges", "hinge"} & set(logged) and math.isfinite(logged["loss"])


def test_each_side_moves_its_own_weights_alone():
    made = task(replace(RECIPE, adversarial=replace(RECIPE.adversarial, after=0)))
    turns: list[tuple[str, set[str]]] = []

    def minimise(loss: torch.Tensor, name: str) -> torch.Tensor:
        for module in made.modules().values():
            module.zero_grad()
        loss.backward()
        moved = {n for n, m in made.modules().items() if any(p.grad is not None and p.grad.any() for p in m.parameters())}
        turns.append((name, moved))
        return loss.detach()

    labelled = next(batch for batch in map(made.batch, range(9)) if (batch["labels"] != IGNORED).any())
    made.update(labelled, 0, minimise)
    assert turns == [("judges", {"judges"}), ("model", {"codec", "vocoder", "reader"})]
    owned = {name: {id(p) for g in o.param_groups for p in g["params"]} for name, o in made.optimizers(LoopConfig(1)).items()}
    assert owned["judges"] == {id(p) for p in made.judges.parameters()} and not owned["judges"] & owned["model"]


def test_the_reader_teaches_encoder_and_first_codebook_only():
    made = task()
    steps(made, 3)  # the codebooks are started
    for module in made.modules().values():
        module.train()
        module.zero_grad()
    _, quantized = made._through(made.batch(0)["samples"])
    made._read(quantized, 12).square().sum().backward()
    heard = {n for n, p in made.codec.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"take.weight", "quantizer.books.0.codes"} <= heard
    assert not any(name.startswith("quantizer.books.1") for name in heard)
    assert all(p.grad is None for p in made.decoder.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_training_lowers_the_loss(weight):
    made = task(replace(RECIPE, adversarial=replace(RECIPE.adversarial, weight=weight)))
    for module in made.modules().values():
        module.eval()
    with torch.no_grad():
        before = made.validate()
    steps(made, 30, lr=4e-3)
    with torch.no_grad():
        after = made.validate()
    assert after["loss"] < 0.85 * before["loss"], (before, after)
    assert after["mel_l1"] < 0.85 * before["mel_l1"], (before, after)
    assert after["phone_accuracy"] > before["phone_accuracy"], (before, after)


def test_what_does_not_fit_is_said():
    def refused(message: str, recipe: WaveCodecRecipe = RECIPE, **tables: str) -> None:
        recordings = Recordings()
        recordings.tables |= tables
        with pytest.raises(SettingsError, match=message):
            WaveCodecTask(recipe, recordings, Valid())  # type: ignore[arg-type]

    refused("another mel", mel="other")
    refused("other symbols", table="other")
    refused("at the 16000 Hz", replace(RECIPE, model=replace(RECIPE.model, sample_rate=24_000)))
    finer = replace(RECIPE, model=replace(RECIPE.model, strides=(4, 8)))
    refused("choose other strides, or recognition=0", finer)
    task(replace(finer, recognition=0.0))
    refused("as long as a crop", replace(RECIPE, crop_frames=90))
