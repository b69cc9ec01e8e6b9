"""The recipe of the autoregressive backend: what its batches hold, what is masked, and that a few of its steps teach."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TOY_MEL, toy_codec, toy_corpus
from tts.codecs.autoencoder import MelCodec

from tts.backends.ar.config import ARConfig
from tts.backends.ar.draw import ARDrawConfig
from tts.errors import SettingsError
from tts.frames import Frames
from tts.text.tokens import PHONES
from tts.train import codes
from tts.train.ar import ARRecipe, ARTask
from tts.train.codes import code_clips, code_frames
from tts.train.data import Corpus
from tts.train.loop import LoopConfig, fit

TINY = ARConfig(dim=16, depth=1, heads=2, head_dim=8, text_dim=8, text_layers=1, code_dim=4, dropout=0.0)
STRESSED, PLAIN = PHONES.id("ˈæ"), PHONES.id("æ")
RECIPE = ARRecipe(model=TINY, budget_frames=200, valid_items=2, codec="tiny")
STILL = ARDrawConfig(drop_prompt=0.0, drop_all=0.0, hide_prompt_phones=0.0, mask=0.0)


@pytest.fixture(autouse=True)
def codec(monkeypatch) -> MelCodec:
    """Two books of eight codes over four bands, in place of every codec that a recipe names."""
    made = toy_codec()
    monkeypatch.setattr(codes, "find_part", lambda role, kind, source: made)
    return made


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("ar") / "toy")


def test_rows_hold_the_codes_of_their_clips_and_tokens_lie_on_them(toy, codec):
    task = ARTask(replace(RECIPE, join=0.7), toy, toy)
    joined = 0
    for step in range(6):
        batch, rows = task.batch(step), task.rows.at(step)
        for b, row in enumerate(rows):
            alone = [
                codec.encode_frames(Frames(toy.mel(i)[None], torch.tensor([toy.item(i).frames]), TOY_MEL.spec)) for i in row
            ]
            codes = torch.cat([one.data[0] for one in alone], 1)
            T = codes.shape[1]
            assert int(batch["lengths"][b]) == T == int(batch["token_frames"][b].sum())
            assert torch.equal(batch["codes"][b, :, :T], codes)
            joined += len(row) == 2
            if len(row) == 2:
                assert int(batch["prompt"][b]) in range(T) and len({toy.item(i).speaker for i in row}) == 1
    assert joined > 0


def test_the_frames_of_tokens_become_those_of_codes_where_they_end():
    assert code_frames(torch.tensor([3, 3, 0, 4]), 5).tolist() == [2, 1, 0, 2]  # ends 1.5, 3, 3, 5
    assert code_frames(torch.tensor([1, 1, 1]), 2).tolist() == [1, 0, 1]
    assert code_frames(torch.tensor([7]), 4).tolist() == [4]


def test_a_batch_is_a_pure_function_of_its_step(toy):
    one, two = (ARTask(RECIPE, toy, toy) for _ in range(2))
    late = one.batch(40)
    one.batch(0)
    for name, tensor in two.batch(40).items():
        assert torch.equal(tensor, late[name]), name


def test_masked_inputs_change_neither_what_is_asked_nor_anything_else_and_none_is_the_plain_model(toy):
    plain, masked = (ARTask(replace(RECIPE, draw=replace(STILL, mask=mask)), toy, toy) for mask in (0.0, 0.5))
    share = []
    for step in range(20):
        ours, theirs = plain.batch(step), masked.batch(step)
        assert not ours["masked"].any()
        share.append(theirs["masked"].float().mean())
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if name != "masked")
    assert float(torch.stack(share).mean()) == pytest.approx(0.5, abs=0.05)
    for task in (plain, masked):
        task.backend.eval()
    unmasked = {**theirs, "masked": torch.zeros_like(theirs["masked"])}
    assert torch.equal(masked.loss(unmasked, 0)["loss"], plain.loss(ours, 0)["loss"])
    assert not torch.equal(masked.loss(theirs, 0)["loss"], plain.loss(ours, 0)["loss"])


def test_only_the_prompt_is_written_as_it_would_be_heard(toy):
    task = ARTask(replace(RECIPE, join=1.0, prompt_as_heard=1.0, draw=replace(STILL, join_prompt=1.0)), toy, toy)
    seen = 0
    for step in range(6):
        batch = task.batch(step)
        for ids, row in zip(batch["ids"], task.rows.at(step), strict=True):
            if len(row) == 2:
                assert (int(ids[1]), int(ids[5])) == (PLAIN, STRESSED)
                seen += 1
    assert seen > 0


def test_codes_are_made_once_and_kept_for_the_same_codec_and_clips(toy, codec, tmp_path, monkeypatch):
    calls = 0
    encode = codec.encode_frames

    def counted(frames):
        nonlocal calls
        calls += 1
        return encode(frames)

    monkeypatch.setattr(codec, "encode_frames", counted)
    path = tmp_path / "new" / "codes.safetensors"
    first = code_clips(codec, toy, [0, 3, 5], path)
    made = calls
    again = code_clips(codec, toy, [0, 3, 5], path)
    assert made > 0 and calls == made
    assert first.keys() == again.keys() and all(torch.equal(first[i], again[i]) for i in first)
    code_clips(codec, toy, [0, 3], path)
    assert calls > made
    made = calls
    with torch.no_grad():
        codec.quantizer.books[0].codes += 1
    code_clips(codec, toy, [0, 3], path)
    assert calls > made


def test_the_model_is_that_of_the_corpus_and_the_codec(toy, codec):
    model = ARTask(RECIPE, toy, toy).backend
    assert model.emits == codec.emits
    assert (model.config.vocabulary, model.config.table) == (len(PHONES), PHONES.identity)
    adopted, drawn = (ARTask(replace(RECIPE, adopt=adopt), toy, toy).backend for adopt in (True, False))
    assert not torch.equal(adopted.network.codes.table.weight, drawn.network.codes.table.weight)


def test_a_corpus_of_another_mel_is_refused(toy, codec, tmp_path, monkeypatch):
    other = MelCodec(replace(codec.config, mel=replace(TOY_MEL, bands=5)))
    monkeypatch.setattr(codes, "find_part", lambda *_: other)
    with pytest.raises(SettingsError, match="another mel than the codec"):
        ARTask(RECIPE, toy, toy)


@pytest.mark.parametrize("head", ["delay", "hierarchical"])
def test_validation_says_the_same_twice_and_falls_when_trained(toy, tmp_path: Path, head):
    model = replace(TINY, head=head, depth_dim=8, depth_layers=1)
    task = ARTask(replace(RECIPE, model=model, draw=STILL), toy, toy)
    task.backend.eval()
    with torch.no_grad():
        before = task.validate()
        assert before == task.validate()
    assert set(before) == {"codes", "book0", "advance", "loss"}
    fit(task, LoopConfig(steps=60, lr=1e-2, warmup=5, ema=0.0, validate_every=1000), tmp_path)
    task.backend.eval()
    with torch.no_grad():
        after = task.validate()
    assert after["codes"] < 0.6 * before["codes"]
    assert after["advance"] < before["advance"]
