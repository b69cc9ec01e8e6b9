"""Copies are measured beside their recordings: a row for the vocoder, and for each number of codebooks one."""

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from tts.audio import MelEncoder
from tts.errors import FitError, InputError, SettingsError
from tts.eval import codec
from tts.eval.codec import codebook_table, copy_of, copy_synthesis
from tts.eval.measures import Meters
from tts.eval.protocols import Item
from tts.eval.report import table
from tts.frames import Frames, FrameSpec, Wave

RATE = 16_000


def tone(seconds: float) -> np.ndarray:
    """A tone with silence on both sides, [N] float32 at 16 kHz."""
    t = np.arange(int(seconds * RATE)) / RATE
    return np.pad(0.3 * np.sin(2 * np.pi * 220 * t), RATE // 10).astype(np.float32)


class Ears:
    """Hears "hello" in any sound, and counts how often it listens."""

    name = "ears"
    heard = 0

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        self.heard += 1
        return "hello" if len(samples) else ""


class Voice:
    name = "voice"

    def embed(self, samples: np.ndarray, rate: int) -> np.ndarray | None:
        return np.ones(2) if len(samples) else None


class Repeats:
    """A "vocoder" that remembers what went in: copy synthesis through it is the identity."""

    context = (0, 0)
    sample_rate = RATE

    def __init__(self) -> None:
        self.accepts = self.emits = MelEncoder().emits
        self.heard = torch.zeros(0)

    def encode(self, wave: Wave) -> Frames:
        self.heard = wave.samples[0]
        return MelEncoder().encode(wave)

    def decode(self, frames: Frames) -> Wave:
        assert frames.data.shape[2] == -(-len(self.heard) // 320)
        return Wave.of(self.heard, RATE)


class Halving:
    """A "codec" of 2 codebooks of 4 codes at 25 Hz: book 0 counts frames, book 1 is constant; one book halves the level."""

    emits = FrameSpec("codes", 2, Fraction(25), (4, 4), "halving")
    context = (0, 0)
    sample_rate = RATE

    def __init__(self, vocoder: Repeats) -> None:
        self.vocoder, self.embeds = vocoder, vocoder.accepts

    def encode(self, wave: Wave) -> Frames:
        self.vocoder.heard = wave.samples[0]
        T = -(-wave.samples.shape[1] // 640)
        codes = torch.stack([torch.arange(T) % 4, torch.zeros(T, dtype=torch.int64)])
        return Frames(codes[None], torch.tensor([T]), self.emits)

    def embed(self, codes: Frames, n_codebooks: int | None = None) -> Frames:
        self.vocoder.heard = self.vocoder.heard * (0.5 if n_codebooks == 1 else 1.0)
        T = -(-len(self.vocoder.heard) // 320)
        return Frames(torch.zeros(1, 80, T), torch.tensor([T]), self.embeds)

    def vectors(self, k: int) -> torch.Tensor:
        return torch.zeros(4, 1)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second each."""
    monkeypatch.setattr(codec, "PLOTS", 0)


@pytest.fixture
def meters() -> Meters:
    for package in ("jiwer", "matplotlib", "librosa", "pesq", "pystoi"):
        pytest.importorskip(package)
    return Meters(asr=Ears(), speaker=Voice(), quality=None, workers=1)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Two sentences with recordings, one without."""
    for name, seconds in (("a", 1.0), ("b", 0.8)):
        soundfile.write(tmp_path / f"{name}.wav", tone(seconds), RATE)
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    return [Item("one", "Hello.", b, None, a), Item("two/b", "Good day.", a, None, b), Item("three", "Hello.", a)]


def test_a_copy_by_the_identity_equals_its_recording() -> None:
    parts = Repeats()
    recording = tone(1.0)[:-7]
    assert np.array_equal(copy_of(recording, parts, parts), recording)


def test_vocoder_and_codec_have_rows_beside_the_recordings(meters: Meters, items: list[Item], tmp_path: Path) -> None:
    vocoder, folder = Repeats(), tmp_path / "copies"
    report = copy_synthesis(vocoder, vocoder, items, folder, meters, Halving(vocoder))
    assert list(report["rows"]) == ["vocoder", "codec 2", "codec 1", "recordings"]
    for name, row in report["rows"].items():
        assert [item["id"] for item in row["items"]] == ["one", "two/b"]
        figures = row["metrics"]
        assert figures["wer"]["value"] == pytest.approx(2 / 3) and figures["sim"]["value"] == pytest.approx(1.0)
        if name != "recordings":
            assert figures["stoi"]["value"] == pytest.approx(1.0, abs=1e-3) and figures["pesq"]["n"] == 2
            assert figures["vocoder_rtf"]["value"] > 0 and ("codec_rtf" in figures) == name.startswith("codec")
            assert row["wer_times_human"]["value"] == 1.0
    assert [row.get("bits_per_second") for row in report["rows"].values()] == [None, 100.0, 50.0, None]
    whole, halved = (soundfile.read(folder / name / "one.wav")[0] for name in ("codec-2", "codec-1"))
    np.testing.assert_allclose(whole, 2 * halved, atol=1e-4)
    assert json.loads((folder / "report.json").read_text())["codec"] == report["codec"]


def test_without_a_text_no_words_are_counted_and_without_a_prompt_no_likeness(meters: Meters, items: list[Item]) -> None:
    mute = [replace(item, text="", prompt=item.recording) for item in items if item.recording is not None]
    both = Repeats()
    rows = copy_synthesis(both, both, mute, meters=meters)["rows"]
    assert "sim" in rows["vocoder"]["metrics"] and "sim" not in rows["recordings"]["metrics"]
    assert not {"wer", "per"} & set(rows["vocoder"]["metrics"])


def test_perplexity_is_over_all_recordings_and_of_every_codebook(meters: Meters, items: list[Item]) -> None:
    vocoder = Repeats()
    report = copy_synthesis(vocoder, vocoder, items, None, meters, Halving(vocoder), [0, 1])
    assert list(report["rows"]) == ["vocoder", "codec 1", "recordings"]
    used = report["codec"]
    assert used["perplexity"] == pytest.approx([4.0, 1.0], abs=0.01) and used["sizes"] == [4, 4] and used["frames"] == 30 + 25
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table(report))
    console.print(codebook_table(report))
    told = console.export_text()
    assert "kbit/s" in told and "0.05" in told and "RTF, codec" in told and "perplexity" in told


def test_the_first_items_have_a_picture_of_all_copies(
    meters: Meters, items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "PLOTS", 1)
    shown = []
    plot_item = codec.plot_item
    monkeypatch.setattr(codec, "plot_item", lambda path, sounds, title: shown.extend(sounds) or plot_item(path, sounds, title))
    vocoder = Repeats()
    copy_synthesis(vocoder, vocoder, items, tmp_path / "copies", meters, Halving(vocoder), [0, 1])
    (picture,) = (tmp_path / "copies" / "plots").iterdir()
    assert picture.name == "copies-one.png" and picture.read_bytes()[1:4] == b"PNG"
    assert shown == ["recording", "vocoder", "codec 1"]


def test_transcripts_of_an_earlier_run_are_not_made_again(meters: Meters, items: list[Item], tmp_path: Path) -> None:
    vocoder = Repeats()
    for _ in range(2):
        copy_synthesis(vocoder, vocoder, items, tmp_path / "copies", meters, Halving(vocoder), [0, 1])
    assert meters.asr is not None and meters.asr.heard == 4  # two recordings, which the vocoder repeats, and two halved ones


def test_a_vocoder_of_the_codecs_own_latents_has_no_row_of_its_own(meters: Meters, items: list[Item]) -> None:
    vocoder, encoder = Repeats(), Repeats()
    encoder.emits = FrameSpec("mel", 100, Fraction(50))
    report = copy_synthesis(encoder, vocoder, items, None, meters, Halving(vocoder))
    assert list(report["rows"]) == ["codec 2", "codec 1", "recordings"]


def test_what_cannot_be_copied_is_refused(meters: Meters, items: list[Item]) -> None:
    vocoder, other = Repeats(), Repeats()
    other.accepts = FrameSpec("mel", 100, Fraction(50))
    with pytest.raises(FitError, match="encoder does not fit the vocoder: width: 80 against 100"):
        copy_synthesis(vocoder, other, items, meters=meters)
    with pytest.raises(FitError, match="codec does not fit the vocoder: width: 80 against 100"):
        copy_synthesis(vocoder, other, items, meters=meters, codec=Halving(vocoder))
    with pytest.raises(InputError, match="no item has a recording"):
        copy_synthesis(vocoder, vocoder, [replace(items[0], recording=None)], meters=meters)
    with pytest.raises(SettingsError, match=r"1\.\.2.*got 3"):
        copy_synthesis(vocoder, vocoder, items, meters=meters, codec=Halving(vocoder), n_codebooks=[3])
    with pytest.raises(SettingsError, match="no codec"):
        copy_synthesis(vocoder, vocoder, items, meters=meters, n_codebooks=[1])
