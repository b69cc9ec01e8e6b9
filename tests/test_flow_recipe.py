"""The recipe of the flow: what its batches hold, and that a few of its steps teach."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tts.audio import MelRecipe
from tts.backends.flow.config import FlowConfig
from tts.backends.flow.path import FlowDrawConfig
from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.backend import BackendRecipe, BackendTask
from tts.train.data import Corpus, CorpusWriter, Item, save_alignment
from tts.train.loop import LoopConfig, fit

MEL = MelRecipe(bands=4)
TINY = FlowConfig(
    mel=MEL, dim=16, depth=1, heads=2, head_dim=8, text_dim=8, text_layers=1, patch=2, modulation="shared",
    expansion="aligned", prior=True, prompt_statistics=True, dropout=0.0,
)  # fmt: skip
STRESSED, PLAIN = PHONES.id("ˈæ"), PHONES.id("æ")
RECIPE = BackendRecipe(model=TINY, budget_frames=200, valid_items=2)


def corpus(folder: Path, n: int = 6, score: float = -1.0) -> Corpus:
    """n clips of two speakers, 20 to 30 frames each; the mel of every frame is the id of its phone."""
    tables = {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": MEL.spec.flavour}
    rows, frames = [], []
    with CorpusWriter(folder, tables) as writer:
        for i in range(n):
            ids = [1, STRESSED, 80 + i, 7]
            lasts = [3, 10 + 2 * i, 0, 7]
            T = sum(lasts)
            mel = torch.repeat_interleave(torch.tensor(ids), torch.tensor(lasts)).float().expand(4, T)
            writer.add(Item(f"{i}", f"speaker {i % 2}", "toy", "F", "en-us", T / 50, "x", T, 0, tuple(ids)), mel)
            rows.append(ids)
            frames.append(lasts)
    save_alignment(folder, rows, frames, [score] * n)
    return Corpus(folder, audio=False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus(tmp_path_factory.mktemp("flow") / "toy")


def test_tokens_lie_on_their_frames_in_single_and_joined_rows(toy: Corpus) -> None:
    task = BackendTask(replace(RECIPE, join=0.7, prompt_as_heard=0.0), toy, toy)
    joined = 0
    for step in range(6):
        batch = task.batch(step)
        for b in range(len(batch["mel"])):
            expanded = torch.repeat_interleave(batch["ids"][b], batch["token_frames"][b])
            T = int(batch["lengths"][b])
            assert torch.equal(expanded.float(), batch["mel"][b, 0, :T])
            joined += int(batch["token_lengths"][b]) == 8
    assert joined > 0


def test_joined_rows_are_two_utterances_of_one_speaker(toy: Corpus) -> None:
    task = BackendTask(replace(RECIPE, join=1.0), toy, toy)
    for epoch in range(3):
        for row in (row for batch in task._open_epoch(epoch) for row in batch):
            assert len({toy.item(i).speaker for i in row}) == 1
            assert len(set(row)) == len(row)


def test_a_batch_is_a_pure_function_of_its_step(toy: Corpus) -> None:
    one, two = (BackendTask(RECIPE, toy, toy) for _ in range(2))
    late = one.batch(40)
    one.batch(0)
    for name, tensor in two.batch(40).items():
        assert torch.equal(tensor, late[name]), name


def test_only_the_prompt_is_written_as_it_would_be_heard(toy: Corpus) -> None:
    task = BackendTask(replace(RECIPE, join=0.0, prompt_as_heard=1.0), toy, toy)
    seen = set()
    for step in range(8):
        batch = task.batch(step)
        for b in range(len(batch["ids"])):
            ids, masked = batch["ids"][b], batch["masked"][b]
            assert int(ids[1]) == (STRESSED if masked[3] else PLAIN)  # the vowel begins at frame 3
            seen.add(bool(masked[3]))
    assert seen == {True, False}


def test_badly_aligned_and_long_clips_are_left_out(tmp_path: Path, toy: Corpus) -> None:
    with pytest.raises(SettingsError, match="align"):
        BackendTask(RECIPE, corpus(tmp_path / "bad", score=-9.0), toy)
    task = BackendTask(replace(RECIPE, max_seconds=0.45), toy, toy)
    assert [toy.item(i).frames for i in task.usable] == [20, 22]


def test_validation_says_the_same_twice_and_falls_when_trained(toy: Corpus, tmp_path: Path) -> None:
    still = FlowDrawConfig(drop_prompt=0.0, drop_all=0.0, hide_prompt_phones=0.0)
    task = BackendTask(replace(RECIPE, draw=still), toy, toy)
    before = task.validate()
    assert before == task.validate()
    assert set(before) == {"flow", "prior", "loss"}
    fit(task, LoopConfig(steps=60, lr=3e-3, warmup=5, ema=0.0, validate_every=1000), tmp_path)
    after = task.validate()
    assert after["prior"] < 0.6 * before["prior"]
    assert after["flow"] < 0.8 * before["flow"]


def test_the_model_learns_the_corpus_symbols_and_level(toy: Corpus) -> None:
    model = BackendTask(RECIPE, toy, toy).backend.config
    assert (model.vocabulary, model.table) == (len(PHONES), PHONES.identity)
    values = torch.cat([toy.mel(i).flatten() for i in range(len(toy))])
    assert model.mel_mean == pytest.approx(float(values.mean()), abs=1e-2)
