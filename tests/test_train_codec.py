"""The codec's recipe: pure batches, levels that keep the floor, a reader of the first codebook, averages that fit."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from tts.codecs.autoencoder import MelCodec

from tts.audio import MelRecipe
from tts.config import load_config
from tts.errors import SettingsError
from tts.frames import frame_mask
from tts.text.tokens import PHONES
from tts.train.asr import IGNORED
from tts.train.codec import CodecTask
from tts.train.loop import LoopConfig, fit
from tts.train.run import CodecTraining
from tts.train.state import Ema, export, named_state

FLOOR = math.log(1e-5)
WORD = [PHONES.id(symbol) for symbol in (" ", "ð", "ə", " ", "k", "ˈæ", "t", ".")]


class Mels:
    """Four clips of 9 to 60 frames, in which a phone is a shape of the spectrum; the last has no alignment."""

    folder = Path("mels")
    alignment = "known"

    def __init__(self, weights: tuple[float, ...] = (1.0, 2.0, 1.0, 1.0)) -> None:
        sizes = (60, 40, 9, 50)
        self.items = [SimpleNamespace(frames=T, weight=weight) for T, weight in zip(sizes, weights, strict=True)]
        self.tables = {"table": PHONES.identity, "mel": MelRecipe().spec.flavour}

    def __len__(self) -> int:
        return len(self.items)

    def item(self, i: int) -> SimpleNamespace:
        return self.items[i]

    def mel(self, i: int) -> torch.Tensor:
        shapes = torch.randn(len(PHONES), 80, generator=torch.Generator().manual_seed(0)) - 2
        mel = shapes[torch.repeat_interleave(self.tokens(i), self.token_frames(i))].T.clone()
        mel[:, :2] = FLOOR
        return mel

    def tokens(self, i: int) -> torch.Tensor:
        return torch.tensor(WORD)

    def token_frames(self, i: int) -> torch.Tensor:
        L = len(WORD)
        return torch.tensor(
            [self.items[i].frames // L] * (L - 1) + [self.items[i].frames - self.items[i].frames // L * (L - 1)]
        )

    def score(self, i: int) -> float:
        return -1.0 if i < 3 else -9.0


def task(*words: str, train: Mels | None = None) -> CodecTask:
    training = load_config(CodecTraining, ROOT / "configs/tiny/codec.yaml", words)
    return CodecTask(training.recipe, train or Mels(), Mels())  # type: ignore[arg-type]


def test_a_batch_is_a_pure_function_of_its_step():
    one, other = task(), task()
    one.batch(7)
    for name, tensor in one.batch(3).items():
        assert torch.equal(tensor, other.batch(3)[name]), name
    assert not torch.equal(one.batch(3)["mel"], one.batch(4)["mel"])


def test_crops_carry_their_labels_and_short_clips_are_padded():
    made = task("recipe.batch_size=40", "recipe.gain_db=0.0", "recipe.lowpass_share=0.0")
    batch, mels = made.batch(0), Mels()
    assert set(batch["lengths"].tolist()) == {9, 20}
    real = frame_mask(batch["lengths"], 20)
    assert (batch["labels"][~real] == IGNORED).all() and (batch["mel"].transpose(1, 2)[~real] == 0).all()
    shapes = {tuple(mels.mel(0)[:, -1].tolist()), tuple(mels.mel(0)[:, 2].tolist())}  # the frames of "." and " "
    for mel, labels, n in zip(batch["mel"], batch["labels"], batch["lengths"].tolist(), strict=True):
        for frame, label in zip(mel.T[:n], labels[:n], strict=True):
            if label != IGNORED and (frame > FLOOR).all():
                assert (label == 0) == (tuple(frame.tolist()) in shapes)
    assert (batch["labels"] == IGNORED).all(1).any(), "the clip without a trusted alignment has no labels"


def test_frames_are_drawn_as_often_as_their_weight_says():
    made = task("recipe.batch_size=400", train=Mels((0.0, 3.0, 0.0, 1.0)))
    unknown = (made.batch(0)["labels"] == IGNORED).all(1).float().mean()  # the fourth clip: 50 of 50 + 3 * 40
    assert abs(float(unknown) - 50 / 170) < 0.07


def test_another_level_moves_all_but_the_floor():
    made, mel = task(), torch.tensor([[FLOOR, FLOOR + 0.5, -2.0]]).repeat(80, 1)
    assert torch.allclose(made._louder(mel, 20.0)[0], torch.tensor([FLOOR, FLOOR + 0.5 + math.log(10), math.log(10) - 2]))
    assert torch.allclose(made._louder(mel, -20.0)[0], torch.tensor([FLOOR, FLOOR, -2 - math.log(10)]))


def test_a_muffled_crop_stays_above_the_floor():
    batch = task("recipe.lowpass_share=1.0").batch(0)
    assert batch["mel"].min() >= FLOOR - 1e-5


def test_the_mean_and_deviation_of_the_corpus_are_kept_in_the_config():
    made, mels = task(), Mels()
    values = torch.cat([mels.mel(i).flatten() for i in range(4)])
    assert made.codec.config.mel_mean == pytest.approx(float(values.mean()), abs=1e-3)
    assert made.codec.config.mel_std == pytest.approx(float(values.std()), abs=1e-3)
    assert task("recipe.normalise=false").codec.config.mel_mean == 0.0


def gradients(made: CodecTask, term: str) -> set[str]:
    """Names of the weights that a term of the loss moves."""
    made.codec.train()
    for step in range(3):  # the first two pass unquantized
        values = made.loss(made.batch(step), step)
    values[term].backward()
    state = {f"{name}/{key}": p for name, module in made.modules().items() for key, p in module.named_parameters()}
    return {key for key, p in state.items() if p.grad is not None and p.grad.abs().sum() > 0}


def test_the_recognition_loss_reaches_the_encoder_and_the_first_codebook_alone():
    made = task()
    moved = gradients(made, "phones")
    assert any(key.startswith("reader/") for key in moved) and any("encoder" in key for key in moved)
    assert "codec/quantizer.books.0.codes" in moved
    beyond = ("codec/quantizer.books.1", "codec/leave", "codec/decoder", "codec/up", "codec/fine_decoder", "codec/give")
    assert not [key for key in moved if key.startswith(beyond)]


def test_without_recognition_there_is_no_reader():
    made = task("recipe.recognition=0.0")
    assert set(made.modules()) == {"codec"}
    assert "phones" not in made.loss(made.batch(0), 0) and "phone_accuracy" not in made.validate()


def test_ctc_is_finite_and_counts_only_where_phones_are_known():
    made = task("recipe.ctc=0.5", "recipe.batch_size=8")
    batch = made.batch(0)
    losses = made.loss(batch, 0)
    assert math.isfinite(losses["ctc"].item()) and losses["ctc"].item() > 0
    batch["labels"] = torch.full_like(batch["labels"], IGNORED)
    assert made.loss(batch, 0)["ctc"].item() == 0


def test_padding_counts_in_no_loss():
    made = task("recipe.ctc=0.5")
    made.codec.eval()
    batch = {name: tensor[:1] for name, tensor in made.valid[0].items()}
    batch = {**batch, "mel": batch["mel"][..., :12], "labels": batch["labels"][:, :12]}
    batch["lengths"] = torch.tensor([12])
    padded = {**batch, "mel": torch.nn.functional.pad(batch["mel"], (0, 7), value=5.0)}
    padded["labels"] = torch.nn.functional.pad(batch["labels"], (0, 7), value=IGNORED)
    for name, value in made.loss(batch, 0).items():
        assert torch.allclose(value, made.loss(padded, 0)[name], atol=1e-5), name


def test_training_lowers_the_loss_and_validation_says_what_it_promises(tmp_path):
    made = task("recipe.batch_size=4", "recipe.recognition=1.0")
    fit(made, LoopConfig(steps=80, lr=1e-2, warmup=5, ema=0.8, threads=1, validate_every=200), tmp_path)
    begun, made.codec = made.codec.eval(), MelCodec(made.codec.config).eval()
    with torch.no_grad():
        fresh = made.validate()
        made.codec = begun
        after = made.validate()
        made.codec.load_state_dict(export(tmp_path)["codec"])
        averaged = made.validate()
    assert after["mel_l1"] < 0.7 * fresh["mel_l1"]
    assert after["phone_accuracy"] > 60 > fresh["phone_accuracy"]
    assert 1 <= after["perplexity_min"] <= after["perplexity_mean"] <= max(made.codec.emits.sizes)
    assert averaged["mel_l1"] < 1.3 * after["mel_l1"], "averaged weights and their codebooks belong together"


@pytest.mark.parametrize("codes", ["factorised", "ema"])
def test_the_averages_follow_the_tensors_that_the_codec_really_uses(codes):
    made = task(f"recipe.model.rvq.codes={codes}")
    ema = Ema(made.modules())
    made.codec.train()
    for step in range(3):
        made.loss(made.batch(step), step)["loss"].backward()
    state = named_state(made.modules())
    for name, live in zip(ema.names, ema.live, strict=True):
        assert live.data_ptr() == state[name].data_ptr(), f"{name} was replaced, not filled"


def test_a_corpus_that_does_not_fit_is_refused():
    train = Mels()
    train.tables = {**train.tables, "mel": "another"}
    with pytest.raises(SettingsError, match="another mel"):
        task(train=train)
    train.tables = {**Mels().tables, "table": "another"}
    with pytest.raises(SettingsError, match="recognition=0"):
        task(train=train)
    task("recipe.recognition=0.0", train=train)
    with pytest.raises(SettingsError, match="no clip with a weight"):
        task(train=Mels((0.0,) * 4))
