"""The recipes of the masked backend: what batches of either layout hold, that steps teach, and what the filter learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import toy_codec, toy_corpus
from tts.codecs.autoencoder import MelCodec

from tts.backends.ar.config import ARConfig
from tts.backends.ar.model import ARBackend
from tts.backends.masked.config import MaskedConfig
from tts.backends.masked.draw import MaskedDrawConfig
from tts.backends.masked.model import MaskedBackend
from tts.decoding.commit import FilterConfig
from tts.errors import SettingsError
from tts.nn.text import lay, left_of
from tts.text.tokens import PHONES
from tts.train import borrow, codes
from tts.train import filter as recipe_of_filter
from tts.train.assemble import find_part, note_configs
from tts.train.borrow import borrow_causal, borrow_masked
from tts.train.data import Corpus
from tts.train.filter import FilterRecipe, FilterTask
from tts.train.loop import LoopConfig, fit
from tts.train.masked import MaskedBackendTask, MaskedRecipe

TINY = MaskedConfig(dim=16, depth=1, heads=2, head_dim=8, text_dim=8, text_layers=1, code_dim=4)
STRESSED, PLAIN = PHONES.id("ˈæ"), PHONES.id("æ")
MASKGCT = MaskedRecipe(model=TINY, budget_frames=200, valid_items=2, codec="tiny")
MAGNET = replace(MASKGCT, model=replace(TINY, layout="magnet"), draw=MaskedDrawConfig("cosine", books="uniform", span=3))
LAYOUTS = pytest.mark.parametrize("recipe", [MASKGCT, MAGNET], ids=["maskgct", "magnet"])


@pytest.fixture(autouse=True)
def codec(monkeypatch) -> MelCodec:
    """Two books of eight codes over four bands, in place of every codec that a recipe names."""
    made = toy_codec()
    for module in (codes, recipe_of_filter):
        find = module.find_part
        monkeypatch.setattr(module, "find_part", lambda role, *rest, f=find: made if role == "codec" else f(role, *rest))
    return made


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("masked") / "toy")


@LAYOUTS
def test_a_batch_is_a_pure_function_of_its_step_and_masks_something_of_every_row(toy, recipe):
    one, two = (MaskedBackendTask(recipe, toy, toy) for _ in range(2))
    late = one.batch(40)
    one.batch(0)
    for name, tensor in two.batch(40).items():
        assert torch.equal(tensor, late[name]), name
    for step in range(8):
        batch = one.batch(step)
        assert batch["masked"].any(1).all() and not (batch["masked"] & batch["given"]).any()
        assert torch.equal(batch["token_frames"].sum(1), batch["lengths"])


def test_only_what_is_given_is_written_as_it_would_be_heard(toy):
    still = MaskedDrawConfig(infill=0.0, drop_prompt=0.0, drop_all=0.0, join_prompt=1.0)
    task = MaskedBackendTask(replace(MASKGCT, join=1.0, prompt_as_heard=1.0, draw=still), toy, toy)
    seen = 0
    for step in range(6):
        for ids, row in zip(task.batch(step)["ids"], task.rows.at(step), strict=True):
            if len(row) == 2:
                assert (int(ids[1]), int(ids[5])) == (PLAIN, STRESSED)
                seen += 1
    assert seen > 0


@LAYOUTS
def test_validation_says_the_same_twice_and_falls_when_trained(toy, tmp_path: Path, recipe):
    task = MaskedBackendTask(replace(recipe, valid_items=6), toy, toy)
    task.backend.eval()
    with torch.no_grad():
        before = task.validate()
        assert before == task.validate()
    assert set(before) <= {"loss", "book0", "others"}
    fit(task, LoopConfig(steps=50, lr=2e-2, warmup=5, ema=0.0, validate_every=1000), tmp_path)
    task.backend.eval()
    with torch.no_grad():
        assert task.validate()["loss"] < 0.8 * before["loss"]


def test_temporal_tubes_can_be_learned_from(toy):
    task = MaskedBackendTask(replace(MASKGCT, draw=MaskedDrawConfig(tube=1.0)), toy, toy)
    batch = task.batch(0)
    assert batch["tube"].all()
    losses = task.loss(batch, 0)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])


# ------------------------------------------------------------------------------------------------------------- filter


@pytest.fixture
def run(toy, tmp_path) -> Path:
    """A trained masked backend's run."""
    task = MaskedBackendTask(MASKGCT, toy, toy)
    folder = tmp_path / "masked"
    note_configs(folder, task.modules())
    fit(task, LoopConfig(steps=3, warmup=1), folder)
    return folder


def filter_task(toy, run, **options) -> FilterTask:
    settings = {"steps": (6, 4), "temperature": 0.0, "noise": 0.0}
    own = {"budget_frames": 400, "clips": 4, "valid_clips": 2, "filter": FilterConfig(block=8, hidden=16), "settings": settings}
    return FilterTask(FilterRecipe(masked=str(run), **{**own, **options}), toy, toy)


def test_the_filter_is_shown_every_pass_and_what_came_of_it(toy, run):
    confidence, last, masked = filter_task(toy, run).known
    assert confidence.shape == last.shape == masked.shape and confidence.shape[1] == 8
    assert (confidence[~masked] == 1).all() and last[~masked].all()  # committed: sure, and never changed
    assert float(confidence[masked].min()) > 0 and 0 < masked.float().mean() < 1
    assert 0 < last[masked].float().mean() <= 1


def test_the_filter_learns_and_the_model_stays_as_it_is(toy, run, tmp_path):
    task = filter_task(toy, run)
    model = {name: tensor.clone() for name, tensor in task.backend.network.state_dict().items()}
    before = task.validate()
    fit(task, LoopConfig(steps=150, lr=1e-2, warmup=5, ema=0.0, validate_every=1000), tmp_path / "filter")
    after = task.validate()
    assert after["loss"] < 0.9 * before["loss"]
    assert all(torch.equal(tensor, model[name]) for name, tensor in task.backend.network.state_dict().items())


def test_the_run_of_a_filter_is_the_backend_that_commits_by_it(toy, run, tmp_path):
    task = filter_task(toy, run)
    folder = tmp_path / "filter"
    note_configs(folder, task.modules())
    fit(task, LoopConfig(steps=2, warmup=1), folder)
    backend: MaskedBackend = find_part("backend.masked", "masked", folder)
    assert backend.config.filter == FilterConfig(block=8, hidden=16)
    coded = codes.code_clips(task.codec, toy, [0, 2])
    utterance = recipe_of_filter._utterance(toy, (0, 2), coded, backend, 0)
    learned, all_passes = (
        backend.decode(utterance, {"steps": (6, 4), "commit": commit, "threshold": 0.0})[2]
        for commit in ("learned", "confidence")
    )
    assert int(learned) == 2 and int(all_passes) == 10  # at threshold 0 one pass a book is enough


def test_a_filter_for_codes_of_another_codec_is_refused(toy, run, codec, monkeypatch):
    other = MelCodec(replace(codec.config, rvq=replace(codec.config.rvq, size=16)))
    find = recipe_of_filter.find_part
    monkeypatch.setattr(recipe_of_filter, "find_part", lambda role, *rest: other if role == "codec" else find(role, *rest))
    with pytest.raises(SettingsError, match="other codes"):
        filter_task(toy, run)


def test_a_borrowed_transformer_that_looks_back_only_says_what_its_lender_says(toy):
    sizes = {"vocabulary": len(PHONES), "table": PHONES.identity, "codebooks": 2, "size": 8, "dim": 16, "depth": 2, "heads": 2}
    both = {**sizes, "head_dim": 8, "text_dim": 8, "text_layers": 1, "code_dim": 4, "norm": "layer", "ff_mult": 2.0}
    torch.manual_seed(0)
    lender = ARBackend(ARConfig(**both, kv_heads=1, left=4, head="hierarchical", depth_dim=8)).eval()
    backend = MaskedBackend(MaskedConfig(**both)).eval()
    filled = borrow_causal(backend, lender.state_dict())
    assert all(any(name.startswith(f"network.{part}.") for name in filled) for part in ("codes", "text", "text_in", "voice"))
    x, back = torch.randn(2, 5, 16), torch.ones(5, 5).tril().bool()
    with torch.no_grad():
        said = backend.network.transformer(x, torch.ones(2), None, back)
        torch.testing.assert_close(said, lender.network.trunk(x))
    again = ARBackend(replace(lender.config, encoder_layers=2, left=16)).eval()  # lent back: the mean of repeated heads
    borrow_masked(again, backend.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.network.trunk(x), lender.network.trunk(x))
        torch.testing.assert_close(again.network.encoder(x), backend.network.transformer(x, torch.ones(2), None))
        ids, known = torch.tensor([[3, 4]] * 2), torch.ones(2, 2).bool()
        frames = torch.tensor([[2, 3]] * 2)
        token, stays = lay(frames, 5)
        masked = backend.network.place_text(backend.network.read(ids, known), frames, 5)
        want = backend.network.text_in(masked + backend.network.book.weight[0])
        got = again.network.place_text(again.network.read(ids, known), token, stays, left_of(frames, token, stays))
        torch.testing.assert_close(got, want)


def test_a_backend_of_other_heads_lends_nothing(monkeypatch):
    lender = ARBackend(ARConfig(dim=16, heads=4, head_dim=8))
    monkeypatch.setattr(borrow, "find_part", lambda *_: lender)
    with pytest.raises(SettingsError, match="head_dim"):
        borrow.find_lender("ar", "x", ARBackend(replace(lender.config, heads=2)))


def test_a_backend_of_other_codes_lends_nothing(toy):
    with pytest.raises(SettingsError, match="other codes or symbols"):
        MaskedBackendTask(replace(MASKGCT, borrow="base-en"), toy, toy)
