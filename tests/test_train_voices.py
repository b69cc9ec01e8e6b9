"""Each factor of a changed voice moves what it names, and nothing else: measured on a vowel made of pulses and resonators."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tts.config import load_config
from tts.errors import MissingPackageError, SettingsError
from tts.train.data import Corpus
from tts.train.prepare import PrepareConfig, prepare
from tts.train.voices import Change, changed

RATE, HERTZ, FORMANTS = 16_000, 125.0, (700.0, 2200.0)


def vowel(seconds: float = 0.8) -> torch.Tensor:
    """Pulses at HERTZ through two resonators in a row, 120 Hz wide, at FORMANTS."""
    N = int(seconds * RATE)
    spectrum = np.zeros(N)
    spectrum[:: int(RATE / HERTZ)] = 1.0
    z = np.exp(-2j * math.pi * np.fft.rfftfreq(2 * N))
    response = np.ones(len(z), complex)
    for hertz in FORMANTS:
        pole = math.exp(-math.pi * 120 / RATE) * np.exp(2j * math.pi * hertz / RATE)
        response /= (1 - pole * z) * (1 - np.conj(pole) * z)
    y = np.fft.irfft(np.fft.rfft(spectrum, 2 * N) * response)[:N]
    return torch.from_numpy(0.3 * y / np.abs(y).max()).float()


def f0_of(samples: torch.Tensor) -> float:
    """Hz of the highest peak of the autocorrelation between 90 and 400 Hz, between the samples."""
    x = samples[2000:-2000].double().numpy()
    r = np.fft.irfft(np.abs(np.fft.rfft(x, 2 * len(x))) ** 2)[: RATE // 90] / np.arange(len(x), len(x) - RATE // 90, -1)
    k = RATE // 400 + int(r[RATE // 400 : -1].argmax())
    return RATE / (k + 0.5 * (r[k - 1] - r[k + 1]) / (r[k - 1] - 2 * r[k] + r[k + 1]))


def formants_of(samples: torch.Tensor) -> list[float]:
    """Hz of the two sharpest resonances of a linear prediction."""
    import librosa

    roots = np.roots(librosa.lpc(samples[2000:-2000].double().numpy(), order=6))
    sharpest = sorted((root for root in roots if root.imag > 0), key=abs)[-2:]
    return sorted(float(np.angle(root)) * RATE / (2 * math.pi) for root in sharpest)


def test_what_measures_hears_the_vowel_as_it_was_made() -> None:
    assert f0_of(vowel()) == pytest.approx(HERTZ, rel=0.005)
    assert formants_of(vowel()) == pytest.approx(FORMANTS, rel=0.03)


@pytest.mark.parametrize(
    "change",
    [
        *(Change(pitch=factor) for factor in (0.8, 1.25)),
        *(Change(formant=factor) for factor in (0.9, 1.15)),
        *(Change(speed=factor) for factor in (0.85, 1.2)),
        Change(speed=1.1, pitch=0.9, formant=1.1),
    ],
    ids=lambda change: change.name,
)
def test_each_factor_moves_its_own_axis_alone(change: Change) -> None:
    pytest.importorskip("pyworld")
    made = changed(vowel(), RATE, change)
    assert len(made) == pytest.approx(len(vowel()) / change.speed, abs=RATE / 50)
    assert f0_of(made) == pytest.approx(HERTZ * change.pitch, rel=0.02)
    assert formants_of(made) == pytest.approx([hertz * change.formant for hertz in FORMANTS], rel=0.05)
    assert torch.equal(made, changed(vowel(), RATE, change))


def test_factors_of_one_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)  # as if it were not installed
    samples = vowel()
    assert changed(samples, RATE, Change()) is samples
    with pytest.raises(MissingPackageError, match="mynah-tts\\[voices\\]"):
        changed(samples, RATE, Change(pitch=1.1))


def test_factors_that_make_no_voice_are_refused() -> None:
    for name in ("speed", "pitch", "formant"):
        for factor in (0.0, -1.0, 0.49, 2.1, math.nan, math.inf):
            with pytest.raises(SettingsError, match=f"{name} .* must be 0.5 to 2"):
                Change(**{name: factor})


def test_a_change_is_named_by_what_it_changes() -> None:
    assert [Change().name, Change(pitch=1.12, formant=0.93).name, Change(speed=0.9).name] == ["", "p1.12f0.93", "s0.9"]


def test_changed_copies_of_a_clip_are_new_speakers_beside_those_at_other_speeds(tmp_path: Path) -> None:
    pytest.importorskip("pyworld")
    import soundfile

    soundfile.write(tmp_path / "a.wav", vowel().numpy(), RATE)
    (tmp_path / "t.tsv").write_text("path\tspeaker\ttext\na.wav\tann\tthe cat sat\n")
    values = ["workers=1", "trim=false", "perturb=[1.25]", "changes=[{pitch: 1.2, formant: 1.1}, {speed: 0.8}]"]
    prepare(tmp_path / "t.tsv", tmp_path / "out", load_config(PrepareConfig, None, values))
    corpus = Corpus(tmp_path / "out")
    assert [item.speaker for item in corpus.items] == ["ann", "ann@1.25", "ann@p1.2f1.1", "ann@s0.8"]
    assert [item.id for item in corpus.items] == ["a", "a@1.25", "a@p1.2f1.1", "a@s0.8"]
    assert [item.samples for item in corpus.items] == pytest.approx([12_800, 10_240, 12_800, 16_000], abs=2)
    hertz = [f0_of(corpus.audio(i).float()) for i in range(4)]
    assert hertz == pytest.approx([HERTZ, 1.25 * HERTZ, 1.2 * HERTZ, HERTZ], rel=0.02)
    assert len({item.tokens for item in corpus.items}) == 1


def test_copies_that_would_share_a_name_are_refused() -> None:
    for twins in ([{}], [{"pitch": 1.1}, {"pitch": 1.1}]):
        with pytest.raises(SettingsError, match="differ"):
            load_config(PrepareConfig, {"changes": twins})
