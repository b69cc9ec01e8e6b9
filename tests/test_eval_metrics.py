"""Each metric says what its definition says, on sounds so simple that the answer is known."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tts.errors import InputError, MissingPackageError
from tts.eval.packages import optional, versions
from tts.eval.quality import dnsmos, pesq_wb, stoi
from tts.eval.speaker import Resemblyzer, similarity
from tts.eval.wer import PocketsphinxAsr, phone_error_rate, phone_errors, spoken_words, transcribe_all, word_errors

RATE = 16_000


def speech_like(seconds: float, pitch: float, seed: int = 0) -> np.ndarray:
    """Harmonics under a wavering envelope: voiced enough for voice activity detection."""
    t = np.arange(int(seconds * RATE)) / RATE
    rng = np.random.default_rng(seed)
    wave = sum(np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in range(1, 25))
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)
    return (0.1 * wave * envelope + 0.001 * rng.standard_normal(len(t))).astype(np.float32)


@dataclass(frozen=True)
class LengthAsr:
    """Hears as many words as there are samples."""

    name: str = "length"

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        return " ".join(["word"] * len(samples))


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert spoken_words("It's THE well-known End!") == ["it's", "the", "well", "known", "end"]
    pytest.importorskip("jiwer")
    assert word_errors("The cat, it sat.", "the cat it sat") == (0, 4)
    assert word_errors("the cat sat", "a cat sat down") == (2, 3)
    assert word_errors("the cat sat", "") == (3, 3)


def test_phone_errors_ignore_stress_and_punctuation() -> None:
    pytest.importorskip("jiwer")
    asked = ["h", "ə", "l", "ˈoʊ", ",", " ", "w", "ˈɜː", "l", "d", "."]
    assert phone_errors(asked, ["h", "ə", "l", "oʊ", "w", "ɜː", "l", "d"]) == (0, 8)
    assert phone_error_rate(asked, ["h", "ə", "l", "iː", "w", "ɜː", "d"]) == 2 / 8
    assert phone_error_rate(["a"], ["a", "b", "b"]) == 2.0
    with pytest.raises(InputError):
        phone_error_rate([",", " "], ["a"])


def test_transcripts_are_cached_by_content_and_recognizer(tmp_path: Path) -> None:
    clips = [np.zeros(2, np.float32), np.zeros(3, np.float32), np.zeros(2, np.float32)]
    cache = tmp_path / "transcripts.json"
    assert transcribe_all(LengthAsr(), clips, RATE, workers=1, cache=cache) == ["word word", "word word word", "word word"]
    kept = json.loads(cache.read_text())
    assert len(kept) == 2  # the same samples are heard once
    cache.write_text(json.dumps(dict.fromkeys(kept, "cached")))
    assert transcribe_all(LengthAsr(), clips[:1], RATE, workers=1, cache=cache) == ["cached"]
    assert transcribe_all(LengthAsr("another"), clips[:1], RATE, workers=1, cache=cache) == ["word word"]
    assert transcribe_all(LengthAsr(), [clips[0] + 0.5], RATE, workers=1, cache=cache) == ["word word"]


def test_two_workers_hear_what_one_hears() -> None:
    clips = [np.zeros(n, np.float32) for n in (3, 1, 2)]
    assert transcribe_all(LengthAsr(), clips, RATE, workers=2) == transcribe_all(LengthAsr(), clips, RATE, workers=1)


def test_pocketsphinx_hears_nothing_in_nothing_and_does_not_remember() -> None:
    pytest.importorskip("pocketsphinx")
    asr, hum = PocketsphinxAsr(), speech_like(0.4, 150)
    first = asr.transcribe(hum, RATE)
    assert asr.transcribe(np.zeros(0, np.float32), RATE) == ""
    asr.transcribe(0.1 * speech_like(0.4, 90), RATE)
    assert asr.transcribe(hum, RATE) == first


def test_similarity_is_a_cosine_and_silence_is_like_nobody() -> None:
    assert similarity(np.array([1.0, 0.0]), np.array([2.0, 0.0])) == pytest.approx(1.0)
    assert similarity(np.array([1.0, 0.0]), np.array([0.0, 3.0])) == pytest.approx(0.0)
    assert similarity(None, np.array([1.0])) == 0.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_resemblyzer_embeds_speech_and_refuses_silence() -> None:
    pytest.importorskip("resemblyzer")
    encoder = Resemblyzer()
    low, again = encoder.embed(speech_like(1.7, 100), RATE), encoder.embed(0.3 * speech_like(1.7, 100), RATE)
    high = encoder.embed(speech_like(1.7, 240), RATE)
    assert low is not None and low.shape == (256,) and np.linalg.norm(low) == pytest.approx(1.0, abs=1e-5)
    assert similarity(low, again) > 0.98 > similarity(low, high)
    for nothing in (np.zeros(0, np.float32), np.zeros(RATE, np.float32)):
        assert encoder.embed(nothing, RATE) is None


def test_dnsmos_rates_silence_and_nothing_worst() -> None:
    assert dnsmos(np.zeros(0, np.float32)) == dnsmos(np.zeros(RATE, np.float32)) == {"ovrl": 1.0, "p808": 1.0}
    pytest.importorskip("speechmos")
    pytest.importorskip("onnxruntime")
    scores = dnsmos(speech_like(10.0, 120))  # one window of its models
    assert all(1.0 <= score <= 5.0 for score in scores.values())


def test_pesq_and_stoi_are_best_on_a_copy_and_worst_on_silence() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    clip = speech_like(2.0, 120)
    noisy = clip + np.random.default_rng(1).normal(0, 0.1, len(clip)).astype(np.float32)
    assert pesq_wb(clip, clip) > 4.6 > 2.0 > pesq_wb(clip, noisy)
    assert stoi(clip, clip[: RATE * 3 // 2]) == pytest.approx(1.0, abs=1e-3)
    assert stoi(clip, noisy) < 0.9
    assert pesq_wb(clip, 0 * clip) == 1.0 and stoi(clip, clip[:0]) == 0.0


def test_missing_package_says_what_to_install() -> None:
    with pytest.raises(MissingPackageError, match=r"no_such_module.*pip install 'mynah-tts\[eval\]'"):
        optional("no_such_module.inside")


def test_versions_name_every_package() -> None:
    found = versions()
    assert {"python", "torch", "pocketsphinx", "Resemblyzer", "speechmos", "pesq"} <= found.keys()
    assert all(found.values())
