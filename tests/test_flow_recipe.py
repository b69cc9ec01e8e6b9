"""The recipe of the flow: what its batches hold, and that a few of its steps teach."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TOY_MEL, toy_corpus

from tts.backends.flow.config import FlowConfig
from tts.backends.flow.path import FlowDrawConfig, draw
from tts.errors import SettingsError
from tts.frames import frame_mask
from tts.text.tokens import PHONES
from tts.train.backend import BackendRecipe, BackendTask
from tts.train.data import Corpus
from tts.train.loop import LoopConfig, fit

TINY = FlowConfig(
    mel=TOY_MEL, dim=16, depth=1, heads=2, head_dim=8, text_dim=8, text_layers=1, patch=2, modulation="shared",
    expansion="aligned", prior=True, prompt_statistics=True, dropout=0.0,
)  # fmt: skip
STRESSED, PLAIN = PHONES.id("ˈæ"), PHONES.id("æ")
RECIPE = BackendRecipe(model=TINY, budget_frames=200, valid_items=2)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("flow") / "toy")


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
        for row in (row for batch in task.rows.epoch(epoch) for row in batch):
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
        BackendTask(RECIPE, toy_corpus(tmp_path / "bad", score=-9.0), toy)
    task = BackendTask(replace(RECIPE, max_seconds=0.47), toy, toy)
    assert [toy.item(i).frames for i in task.rows.usable] == [20, 23]


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


def test_prompts_are_noisy_where_targets_and_everything_else_stay_as_they_are(toy: Corpus) -> None:
    for share in (0.5, 1.0):
        clean, noisy = (BackendTask(replace(RECIPE, noisy_prompt=p), toy, toy) for p in (0.0, share))
        veiled = heard = 0
        for step in range(8):
            before, after = clean.batch(step), noisy.batch(step)
            assert set(after) - set(before) == {"prompt_mel"}
            for name, tensor in before.items():
                assert torch.equal(tensor, after[name]), name
            known = frame_mask(before["lengths"], before["mel"].shape[2]) & ~before["masked"]
            differs = (after["prompt_mel"] != before["mel"]).any(1)
            assert not (differs & ~known).any()
            veiled, heard = veiled + int(differs.any(1).sum()), heard + int(known.any(1).sum())
        assert veiled == heard if share == 1 else 0 < veiled < heard
        assert all("prompt_mel" not in batch for batch in noisy.valid_batches)
        assert set(noisy.loss(noisy.batch(0), 0)) == {"flow", "prior", "loss"}


@torch.no_grad()
def test_the_network_hears_the_noisy_prompt_and_is_judged_by_the_clean_target(toy: Corpus) -> None:
    task = BackendTask(
        replace(RECIPE, join=0.0, draw=FlowDrawConfig(drop_prompt=0.0, drop_all=0.0, longest_span=0.7)), toy, toy
    )
    for parameter in task.backend.parameters():  # a network at rest would answer zero
        torch.nn.init.normal_(parameter, std=0.1)
    batch = task.batch(0)
    loss = float(task.loss(batch, 0)["loss"])
    assert float(task.loss({**batch, "prompt_mel": batch["mel"]}, 0)["loss"]) == loss
    masked = batch["masked"][:, None]
    elsewhere = torch.where(masked, torch.randn(batch["mel"].shape), batch["mel"])
    assert float(task.loss({**batch, "prompt_mel": elsewhere}, 0)["loss"]) == loss
    noisy = torch.where(masked, batch["mel"], batch["mel"] + 30)
    assert float(task.loss({**batch, "prompt_mel": noisy}, 0)["loss"]) != loss


def test_prompts_last_so_many_seconds_and_leave_enough_to_say() -> None:
    lengths = torch.tensor([30, 60, 100, 400, 800]).repeat(200)
    config = FlowDrawConfig(span_to_end=1.0, prompt_seconds=(1.0, 12.0))
    drawn = draw(lengths, 1, config, torch.Generator().manual_seed(0), frame_rate=50.0)
    prompts = (lengths - drawn.masked.sum(1)).view(200, 5)
    assert torch.equal(drawn.masked[:, -1], lengths == 800)  # to the end
    shortest, longest = prompts.amin(0).tolist(), prompts.amax(0).tolist()
    assert (shortest[:3], longest[:3]) == ([0, 10, 50], [0, 10, 50])  # a second is left
    assert 50 <= shortest[3] < 60 and 270 < longest[3] <= 280  # 30 % are left
    assert 50 <= shortest[4] < 60 and 540 < longest[4] <= 560
    joined = draw(torch.tensor([400]), 1, config, joins=torch.tensor([90]))
    assert int(joined.masked.sum()) == 310  # a whole utterance is the prompt of another
    short = draw(torch.tensor([800]).repeat(50), 1, replace(config, prompt_seconds=(1.0, 3.0)), frame_rate=50.0)
    assert int((~short.masked).sum(1).min()) >= 50 and int((~short.masked).sum(1).max()) <= 150
    with pytest.raises(SettingsError, match="shorter first"):
        FlowDrawConfig(prompt_seconds=(3.0, 1.0))


def test_prompts_by_share_are_drawn_as_ever() -> None:
    drawn = draw(torch.tensor([40, 30, 50]), 2, FlowDrawConfig(), torch.Generator().manual_seed(7), torch.tensor([0, 12, 0]))
    assert drawn.prompt_mel is None
    # as version 0.2 drew them
    assert [(int(row.int().argmax()), int(row.sum())) for row in drawn.masked] == [(10, 30), (12, 18), (10, 40)]
    assert drawn.drop_prompt.tolist() == [False, False, True] and drawn.t.tolist() == pytest.approx(
        [0.1837, 0.8503, 0.5170], abs=1e-4
    )
