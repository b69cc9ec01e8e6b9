"""The recipe of the recognizer: what its batches hold, and which clips it leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_alignment import BANDS, CAT, Clip, aligned, ids

from tts.asr.align import phones_of
from tts.asr.model import RecognizerConfig
from tts.audio import MelRecipe
from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.asr import IGNORED, RecognizerRecipe, RecognizerTask
from tts.train.data import Corpus
from tts.train.loop import LoopConfig, fit

MODEL = RecognizerConfig(
    PHONES.recognizer_symbols, PHONES.identity, MelRecipe(bands=BANDS), dim=16, layers=1, kernel=3, stem=16, dropout=0.0
)
RECIPE = RecognizerRecipe(MODEL, budget_frames=120, time_masks=0, band_masks=0, noise_share=0.0, lowpass_share=0.0, warp=0.0)


def task(
    folder: Path, clips: list[Clip], scores: list[float] | None = None, recipe: RecognizerRecipe = RECIPE
) -> RecognizerTask:
    corpus = Corpus(aligned(folder, clips, scores), audio=False)
    return RecognizerTask(recipe, corpus, corpus)


def test_labels_lie_on_their_frames_at_any_tempo(tmp_path: Path) -> None:
    batch = task(tmp_path / "c", [Clip([9, 6, 6, 5, 6, 9, 6, 9])] * 4).batch(3)
    said = batch["labels"] != IGNORED
    heard = batch["mel"].argmax(1)
    assert float((heard == batch["labels"])[said].float().mean()) > 0.9
    assert torch.equal(said.sum(1), batch["lengths"])
    assert len(set(batch["lengths"].tolist())) > 1
    assert batch["targets"].tolist() == phones_of(CAT) * len(batch["mel"])


def test_a_batch_is_a_pure_function_of_its_step(tmp_path: Path) -> None:
    recipe = RecognizerRecipe(MODEL, budget_frames=120, noise_share=0.5, lowpass_share=0.5)
    one, two = (task(tmp_path / name, [Clip()] * 9, recipe=recipe) for name in "ab")
    late = one.batch(40)
    one.batch(0)
    assert all(torch.equal(tensor, late[name]) for name, tensor in two.batch(40).items())


def test_frames_of_an_alignment_that_is_not_trusted_have_no_labels(tmp_path: Path) -> None:
    bad = task(tmp_path / "c", [Clip()] * 2, [-9.0] * 2)
    assert bool((bad.batch(0)["labels"] == IGNORED).all())
    assert bad.loss(bad.batch(0), 0)["frames"].item() == 0.0


def test_clips_without_text_too_long_or_too_short_for_theirs_are_left_out(tmp_path: Path) -> None:
    clips = [Clip(), Clip(known=()), Clip([200] * 8), Clip([0, 1, 1, 0, 1, 1, 1, 0])]
    recipe = replace(RECIPE, max_seconds=20.0)
    lengths = {int(T) for step in range(8) for T in task(tmp_path / "c", clips, recipe=recipe).batch(step)["lengths"]}
    assert min(lengths) >= 0.85 * 24 - 1 and max(lengths) <= 1.15 * 24 + 1
    with pytest.raises(SettingsError, match="needs transcripts"):
        task(tmp_path / "none", clips[1:])
    with pytest.raises(SettingsError, match="no aligned clip"):
        task(tmp_path / "unsure", clips, [-9.0] * 4, replace(RECIPE, aligned_only=True))


def test_a_text_without_phones_is_a_target_of_none(tmp_path: Path) -> None:
    quiet = task(tmp_path / "c", [Clip(known=ids(" ", ".")), Clip()])
    batch = quiet.batch(0)
    assert sorted(batch["target_lengths"].tolist()) == [0, 5] and batch["targets"].dtype == torch.int64
    assert bool(torch.isfinite(quiet.loss(batch, 0)["loss"]))


def test_a_noisy_student_learns_what_was_surely_heard_in_clips_without_a_text(tmp_path: Path) -> None:
    clips, scores = [Clip(known=()), Clip(known=(), frames=[9, 6, 6, 5, 6, 9, 6, 9])], [-0.2, -0.9]
    student = task(tmp_path / "c", clips, scores, replace(RECIPE, heard=True, tempo=0.0))
    for step in range(3):
        batch = student.batch(step)
        assert set(batch["lengths"].tolist()) == {sum(clips[0].frames)}  # never the second, which was hardly understood
        assert batch["targets"].tolist() == phones_of(CAT) * len(batch["mel"])
        assert bool((batch["mel"].argmax(1) == batch["labels"]).all())
    assert student.loss(batch, 0)["ctc"] > 0 and student.loss(batch, 0)["frames"] > 0
    trusting = task(tmp_path / "d", clips, scores, replace(RECIPE, heard=True, heard_score=-1.0, tempo=0.0))
    taught = {int(T) for step in range(4) for T in trusting.batch(step)["lengths"]}
    assert taught == {sum(clip.frames) for clip in clips}
    with pytest.raises(SettingsError, match="needs transcripts"):
        task(tmp_path / "off", clips, scores)


def test_a_spliced_clip_goes_on_with_another_and_its_labels_and_phones_with_it(tmp_path: Path) -> None:
    clips = [Clip([9, 6, 6, 5, 6, 9, 6, 9]), Clip([3, 4, 5, 7, 4, 8, 4, 3])]
    spliced = task(tmp_path / "c", clips, recipe=replace(RECIPE, splice=1.0, tempo=0.0))
    plain = {56, 38}
    lengths = set()
    for step in range(12):
        batch = spliced.batch(step)
        assert torch.equal(batch["mel"].argmax(1)[batch["labels"] != IGNORED], batch["labels"][batch["labels"] != IGNORED])
        assert batch["targets"].tolist() == phones_of(CAT) * len(batch["mel"])  # both say the same, cut at the same word
        lengths |= set(batch["lengths"].tolist())
    assert lengths - plain  # a beginning of one with an end of the other


def test_a_few_steps_teach_it_to_read(tmp_path: Path) -> None:
    pupil = task(tmp_path / "c", [Clip([3, 4, 4, 5, 4, 5, 4, 3])] * 4)
    fit(pupil, LoopConfig(steps=60, lr=1e-2, warmup=5, ema=0.0, validate_every=1000), tmp_path / "run")
    pupil.recognizer.eval()
    with torch.no_grad():
        assert pupil.validate() == {"per_all": 0.0, "per_toy": 0.0}
