"""An evaluation speaks every item once, keeps what it spoke, and counts failures as failures."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tts.errors import SettingsError, TextError
from tts.eval.hard import hard_items, run_hard
from tts.eval.measures import Clip, Meters, measure, read_clip, speech_extent
from tts.eval.noise import NoisyPrompts, veiled
from tts.eval.plots import worst
from tts.eval.pool import run_pooled
from tts.eval.protocols import Item, write_protocol
from tts.eval.report import build_report
from tts.eval.run import TRIES, Tries, run

RATE = 16_000


def tone(seconds: float, silence: float = 0.0) -> np.ndarray:
    """A tone with silence on both sides, [N] float32 at 16 kHz."""
    t = np.arange(int(seconds * RATE)) / RATE
    return np.pad(0.3 * np.sin(2 * np.pi * 220 * t), int(silence * RATE)).astype(np.float32)


@dataclass
class Audio:
    samples: np.ndarray
    sample_rate: int
    report: dict[str, Any]


@dataclass
class Fake:
    """Speaks a tone of a second; fails where it is told to."""

    identity: str = "fake"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    trials: list[tuple[int, bool]] = field(default_factory=list)

    def trying(self, retries: int, rerank: bool) -> "Fake":
        self.trials.append((retries, rerank))
        return self

    def synthesize(self, text: str, prompt: Any, **options: Any) -> Audio:
        self.asked.append((text, options))
        if text == "unspeakable":
            raise TextError("nothing can be said")
        return Audio(tone(0.8, 0.1), RATE, {"planned_seconds": 1.0, "sentences": [{"tries": 1}, {"tries": 2}]})


class Ears:
    """Hears "hello" in any sound."""

    name = "ears"

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        return "hello" if len(samples) else ""


class Voice:
    name = "voice"

    def embed(self, samples: np.ndarray, rate: int) -> np.ndarray | None:
        return np.ones(2) if len(samples) else None


def align(samples: np.ndarray, text: str) -> list[tuple[str, float, float]]:
    return [("h", 0.1, 0.2), ("oʊ", 0.2, 0.8)] if len(samples) else []


METERS = Meters(asr=Ears(), speaker=Voice(), quality=None, align=align, workers=1)


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    pytest.importorskip("jiwer")
    pytest.importorskip("matplotlib")
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    items = [
        Item("one", "Hello.", tmp_path / "a.wav", "Before.", tmp_path / "a.wav"),
        Item("two/b", "Good day.", tmp_path / "a.wav"),
        Item("three", "unspeakable", tmp_path / "a.wav"),
    ]
    write_protocol(items, tmp_path / "p.tsv")
    return tmp_path / "p.tsv"


def test_run_speaks_keeps_measures_and_reports(protocol: Path, tmp_path: Path) -> None:
    fake, folder = Fake(), tmp_path / "run"
    report = run(protocol, fake, folder, METERS, seed=5)
    assert [text for text, _ in fake.asked] == ["Hello.", "Good day.", "unspeakable"] * 2
    assert [options["check"] for _, options in fake.asked] == [False] * 3 + [True] * 3
    assert fake.asked[0][1] == {"prompt_text": "Before.", "backend": "flow", "seed": 5, "settings": None, "check": False}
    row = report["rows"]["check-off"]
    figures = {name: figure["value"] for name, figure in row["metrics"].items()}
    assert figures["wer"] == 3 / 4  # hello; good day -> hello; unspeakable -> nothing
    assert figures["empty"] == pytest.approx(1 / 3)
    assert figures["aligned"] == pytest.approx(2 / 3) and figures["sim"] == pytest.approx(2 / 3)
    assert figures["filled"] == pytest.approx(0.8, abs=0.1) and figures["well_filled"] == 1.0
    assert figures["rtf"] > 0
    assert [item["id"] for item in report["rows"]["recordings"]["items"]] == ["one"]
    assert "TextError" in row["items"][2]["report"]["error"]
    assert json.loads((folder / "report.json").read_text())["rows"].keys() == {"check-off", "check-on", "recordings"}
    assert len(list((folder / "check-off").glob("*.wav"))) == 3
    assert (folder / "plots" / "check-off-one.png").read_bytes()[1:4] == b"PNG"


def test_run_goes_on_where_it_stopped_and_never_mixes_settings(protocol: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = run(protocol, Fake(), folder, METERS, tries=(Tries(1),))
    (folder / "check-off" / "one.json").unlink()  # killed between the sound and its report
    fake = Fake()
    second = run(protocol, fake, folder, METERS, tries=(Tries(1),))
    assert [text for text, _ in fake.asked] == ["Hello."]
    assert first["rows"]["check-off"]["metrics"]["wer"] == second["rows"]["check-off"]["metrics"]["wer"]
    with pytest.raises(SettingsError, match="another seed, system;"):
        run(protocol, Fake("other"), folder, METERS, tries=(Tries(1),), seed=1)


def test_broken_system_stops_the_run_instead_of_counting_as_silence(protocol: Path, tmp_path: Path) -> None:
    class Broken:
        def synthesize(self, text: str, prompt: Any, **options: Any) -> Audio:
            raise SettingsError("no such backend")

    with pytest.raises(SettingsError, match="no such backend"):
        run(protocol, Broken(), tmp_path / "run", METERS)
    assert not list((tmp_path / "run" / "check-off").iterdir())


def test_speech_extent_leaves_the_silence_out() -> None:
    start, end = speech_extent(tone(1.0, silence=0.5))
    assert start == pytest.approx(0.5, abs=0.06) and end == pytest.approx(1.5, abs=0.06)
    assert speech_extent(np.zeros(RATE, np.float32)) == speech_extent(np.zeros(0, np.float32)) == (0.0, 0.0)


def test_phone_outside_the_sound_is_not_aligned() -> None:
    meters = Meters(asr=None, speaker=None, quality=None, align=lambda samples, text: [("a", 0.5, 1.2)])
    long, short = measure([Clip("x", tone(2.0), "a"), Clip("y", tone(1.0), "a")], meters)
    assert (long["aligned"], short["aligned"]) == (1.0, 0.0)


def test_phone_errors_come_from_the_given_recognizer() -> None:
    meters = Meters(asr=None, speaker=None, quality=None, phones=lambda samples, text: (2, len(text)))
    assert measure([Clip("x", tone(1.0), "abcd")], meters)[0]["phone_errors"] == 2


def test_clips_are_read_at_16_khz_in_mono_even_when_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.zeros((48_000, 2)), 48_000)
    soundfile.write(tmp_path / "e.wav", np.zeros(0), RATE)
    assert read_clip(tmp_path / "s.wav").shape == (RATE,)
    assert read_clip(tmp_path / "e.wav").shape == (0,)


def test_worst_items_come_first_and_ties_keep_their_order() -> None:
    items = [{"id": i, "utterance_wer": w} for i, w in enumerate([0.1, 0.9, None, 0.9, 0.5])]
    assert [item["id"] for item in worst(items, 3)] == [1, 3, 4]


# -------------------------------------------------------------------------------------------- tries, pools, hard list


def test_each_number_of_tries_is_a_row_and_a_folder_of_its_own(protocol: Path, tmp_path: Path) -> None:
    fake = Fake()
    tries = (Tries(1), Tries(4), Tries(4, rerank=True))
    report = run(protocol, fake, tmp_path / "run", METERS, tries)
    assert [*report["rows"]] == ["check-off", "check-on-4", "rerank-4", "recordings"]
    assert fake.trials == [(3, False), (3, True)]
    assert [options["check"] for _, options in fake.asked] == [False] * 3 + [True] * 6
    metrics = report["rows"]["rerank-4"]["metrics"]
    assert (metrics["tries"]["value"], metrics["tries"]["n"]) == (1.5, 2)  # three tries of two sentences, in each of two items
    run(protocol, fake, tmp_path / "run", METERS, (Tries(2),))  # a row more in the same folder
    assert (tmp_path / "run" / "check-on" / "one.wav").exists()


def test_voices_count_once_each_in_the_mean_over_speakers(tmp_path: Path) -> None:
    rows = [{"id": str(i), "sim": sim, "speaker": who} for i, (sim, who) in enumerate([(0.9, "a"), (0.9, "a"), (0.3, "b")])]
    row = build_report({"check-off": rows}, {}, seed=0)["rows"]["check-off"]
    assert row["metrics"]["sim"]["value"] == pytest.approx(0.7)
    assert (row["metrics"]["sim_speakers"]["value"], row["metrics"]["sim_speakers"]["n"]) == (pytest.approx(0.6), 2)
    assert row["speakers"] == [{"speaker": "a", "sim": 0.9, "items": 2}, {"speaker": "b", "sim": 0.3, "items": 1}]


def test_pooled_protocols_have_a_row_each_and_one_for_all(protocol: Path, tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text(protocol.read_text().replace("unspeakable", "Hello again."))  # the same ids
    report = run_pooled([protocol, tmp_path / "q.tsv"], Fake(), tmp_path / "run", METERS, tries=(Tries(1),))
    rows = report["rows"]
    assert [*rows] == ["p check-off", "q check-off", "all check-off", "recordings"]
    assert [len(row["items"]) for row in rows.values()] == [3, 3, 6, 2]
    assert rows["all check-off"]["metrics"]["wer"]["value"] == 6 / 9  # (3 + 3) errors of (4 + 5) words
    assert [item["id"] for item in rows["recordings"]["items"]] == ["p/one", "q/one"]
    assert "| all check-off (6) |" in (tmp_path / "run" / "report.md").read_text()
    with pytest.raises(SettingsError, match="p, p"):
        run_pooled([protocol, protocol], Fake(), tmp_path / "again", METERS)


def test_the_hard_list_is_told_by_category(protocol: Path, tmp_path: Path) -> None:
    items = [item for item in hard_items() if item.id in ("words-01", "words-02", "long-01")]
    meters = replace(METERS, said=lambda samples, text: {"free": float(text != "No.")})
    report = run_hard(items, Fake(), tmp_path / "hard", meters)
    found = report["categories"]["check-on"]
    assert {name: (row["items"], row["free"]["value"]) for name, row in found.items()} == {
        "words": (2, 0.5),
        "long": (1, 1.0),
        "all": (3, pytest.approx(2 / 3)),
    }
    assert found["long"]["lost"]["value"] == pytest.approx(59 / 60) and found["words"]["lost"]["value"] == 0.0
    written = (tmp_path / "hard" / "report.md").read_text()
    assert "| words | 2 | 50.0 % [" in written and json.loads((tmp_path / "hard" / "report.json").read_text())["categories"]


def test_a_run_writes_listening_pages_of_the_worst(protocol: Path, tmp_path: Path) -> None:
    meters = replace(METERS, phones=lambda samples, text: (len(text) if text.startswith("Good") else 0, len(text)))
    run(protocol, Fake(), tmp_path / "run", meters, (Tries(1),), pages=1)
    page = (tmp_path / "run" / "pages" / "check-off.html").read_text()
    assert "two/b" in page and "Good day." in page and "unspeakable" not in page
    assert "| two/b | 100% |" in (tmp_path / "run" / "pages" / "check-off.md").read_text()


def test_noisy_prompts_are_heard_and_clean_ones_compared_with(protocol: Path, tmp_path: Path) -> None:
    heard: list[np.ndarray] = []

    class Listens(Fake):
        def synthesize(self, text: str, prompt: Any, **options: Any) -> Audio:
            heard.append(prompt[0])
            return super().synthesize(text, prompt, **options)

    voices: list[np.ndarray] = []

    class Compares(Voice):
        def embed(self, samples: np.ndarray, rate: int) -> np.ndarray | None:
            voices.append(samples)
            return super().embed(samples, rate)

    meters = replace(METERS, speaker=Compares())
    report = run(protocol, NoisyPrompts(Listens(), 5.0), tmp_path / "noisy", meters, TRIES[:1], seed=5)
    assert report["settings"]["system"] == "fake, prompts at 5 dB SNR"
    assert any(np.array_equal(voice, read_clip(tmp_path / "a.wav")) for voice in voices)
    assert not any(np.array_equal(voice, prompt) for voice in voices for prompt in heard)
    assert len(heard) == 3 and not np.array_equal(heard[0], heard[1])  # each item has its noise
    again = len(heard)
    run(protocol, NoisyPrompts(Listens(), 5.0), tmp_path / "again", meters, TRIES[:1], seed=5)
    assert all(np.array_equal(one, two) for one, two in zip(heard[:again], heard[again:], strict=True))


@pytest.mark.parametrize("snr_db", [-5.0, 5.0, 20.0])
def test_a_prompt_is_veiled_at_its_ratio_and_never_clipped(snr_db: float) -> None:
    samples = tone(1.0)
    mixed = veiled(samples, snr_db, seed=1).astype(float)
    assert np.abs(mixed).max() < 1 and mixed.shape == samples.shape
    gain = np.dot(mixed, samples) / np.dot(samples, samples)  # noise has no part in the tone, nearly
    ratio = np.sum((gain * samples) ** 2) / np.sum((mixed - gain * samples) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.5)
