"""The speaker encoder: what its vectors are, and that it learns to tell speakers apart."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tts.audio import MelRecipe
from tts.backends.flow.config import FlowConfig
from tts.errors import CheckpointError, SettingsError
from tts.nn.speaker import SpeakerConfig, SpeakerEncoder
from tts.text.tokens import PHONES
from tts.train.assemble import note_configs
from tts.train.backend import BackendRecipe, BackendTask
from tts.train.data import Corpus, CorpusWriter, Item, save_alignment
from tts.train.loop import LoopConfig, fit
from tts.train.speaker import GE2E, SpeakerRecipe, SpeakerTask, equal_error_rate, trained_speaker

MEL = MelRecipe(bands=4)
TINY = SpeakerConfig(bands=4, window=8, join=2, hidden=16, layers=1, dim=8)
RECIPE = SpeakerRecipe(model=TINY, speakers=4, crops=3)


def corpus(folder: Path) -> Corpus:
    """Six speakers, each with a slope over the bands and a rhythm; the last one has a single clip of five frames."""
    draw = torch.Generator().manual_seed(0)
    clips = [s for s in range(5) for _ in range(3)] + [5]
    tables = {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": MEL.spec.flavour}
    with CorpusWriter(folder, tables) as writer:
        for i, speaker in enumerate(clips):
            T = 5 if speaker == 5 else 20 + i
            timbre = torch.tensor([math.cos(speaker), math.sin(speaker), math.cos(2 * speaker), math.sin(2 * speaker)])
            mel = timbre[:, None] + 0.5 * torch.randn(4, T, generator=draw)
            writer.add(Item(f"{i}", f"{speaker}", "toy", "F", "en-us", T / 50, "x", T, 0, (1, 80)), mel)
    lengths = [5 if s == 5 else 20 + i for i, s in enumerate(clips)]
    save_alignment(folder, [[1, 80]] * len(clips), [[2, T - 2] for T in lengths], [-1.0] * len(clips))
    return Corpus(folder, audio=False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus(tmp_path_factory.mktemp("speaker") / "toy")


def test_a_voice_is_a_unit_vector_whatever_the_gain_and_the_company() -> None:
    encoder = SpeakerEncoder(TINY).eval()
    mels = [torch.randn(4, T) for T in (3, 8, 21)]
    vectors = encoder.embed(mels)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-6)
    louder = encoder.embed([2 * mel + 5 for mel in mels])
    assert torch.allclose(vectors, louder, atol=1e-4)
    assert torch.allclose(vectors[1:2], encoder.embed(mels[1:2]), atol=1e-6)
    assert not encoder.embed([torch.zeros(4, 0)]).any() and encoder.embed([]).shape == (0, 8)


def test_windows_overlap_by_half_and_cover_the_clip() -> None:
    encoder = SpeakerEncoder(replace(TINY, bands=1))
    starts = {T: [int(w[0, 0]) for w in encoder.windows(torch.arange(T)[None].float())] for T in (8, 9, 16, 21)}
    assert starts == {8: [0], 9: [0, 1], 16: [0, 4, 8], 21: [0, 4, 8, 12, 13]}
    assert encoder.windows(torch.arange(3)[None].float())[0, :, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    for wrong in ({"window": 6}, {"layers": 0}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            replace(TINY, **wrong)


def test_ge2e_compares_a_crop_with_centroids_that_leave_it_out() -> None:
    vectors = F.normalize(torch.randn(3, 2, 4), dim=-1)
    losses = []
    for j in range(3):
        for i in range(2):
            scores = []
            for k in range(3):
                crops = [vectors[k, m] for m in range(2) if (k, m) != (j, i)]
                scores.append(10 * F.cosine_similarity(vectors[j, i], torch.stack(crops).mean(0), dim=0))
            losses.append(-scores[j] + torch.stack(scores).logsumexp(0))
    assert torch.allclose(GE2E(10.0)(vectors), torch.stack(losses).mean(), atol=1e-5)
    alike = F.normalize(torch.ones(3, 2, 4), dim=-1)
    assert float(GE2E(10.0)(alike).detach()) == pytest.approx(math.log(3), abs=1e-5)


def test_the_equal_error_rate_is_where_both_errors_meet() -> None:
    same = torch.tensor([True, True, True, False, False, False])
    assert equal_error_rate(torch.tensor([0.9, 0.8, 0.7, 0.3, 0.2, 0.1]), same) == 0.0
    assert equal_error_rate(torch.tensor([0.9, 0.8, 0.2, 0.3, 0.1, 0.0]), same) == pytest.approx(1 / 3)
    assert equal_error_rate(torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]), same) == 1.0


def test_a_batch_is_a_pure_function_of_its_step(toy: Corpus) -> None:
    one, two = (SpeakerTask(RECIPE, toy, toy) for _ in range(2))
    assert one.batch(7).shape == (12, 8, 4)
    assert torch.equal(one.batch(7), two.batch(7)) and not torch.equal(one.batch(7), one.batch(8))
    with pytest.raises(SettingsError, match="speakers"):
        SpeakerTask(replace(RECIPE, speakers=7), toy, toy)


def test_speakers_are_told_apart_and_a_flow_begins_with_the_encoder(toy: Corpus, tmp_path: Path) -> None:
    task = SpeakerTask(RECIPE, toy, toy)
    before = task.validate()["eer"]
    note_configs(tmp_path, task.modules())
    fit(task, LoopConfig(steps=120, lr=1e-2, warmup=5, ema=0.9, validate_every=1000), tmp_path)
    losses = [float(task.loss(task.batch(step), step)["loss"].detach()) for step in range(1000, 1010)]
    assert sum(losses) / 10 < 0.5 * math.log(4)  # log N is no better than chance
    assert task.validate()["eer"] < min(0.15, before)

    encoder = trained_speaker(tmp_path)
    flow = FlowConfig(mel=MEL, dim=16, depth=1, heads=2, head_dim=8, text_dim=8, text_layers=1, expansion="aligned")
    recipe = BackendRecipe(model=flow, budget_frames=100, valid_items=2, speaker_start=tmp_path)
    backend = BackendTask(recipe, toy, toy).backend
    assert backend.config.speaker == TINY and backend.speaker is not None
    for key, tensor in backend.speaker.encoder.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[key])
    with pytest.raises(SettingsError, match="speaker_start"):
        BackendTask(replace(recipe, model=replace(flow, speaker=TINY), speaker_start=None), toy, toy)
    with pytest.raises(CheckpointError):
        trained_speaker(tmp_path / "nothing")
