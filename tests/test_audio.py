"""A recording is read, prepared and written, or refused in a sentence that says what to do."""

import io
import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch

from tts.audio import FORMATS, PEAK, MelEncoder, MelRecipe, level, log_mel, mel_filters, read_prompt, resample, save, trim
from tts.errors import OutputError, PromptError, SettingsError
from tts.frames import Wave
from tts.recording import load

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 300.0, peak: float = 0.3) -> torch.Tensor:
    """A tone whose loudness goes up and down like speech."""
    t = torch.arange(round(seconds * rate)) / rate
    return peak * torch.sin(2 * torch.pi * hertz * t) * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * t))


def encoded(samples: np.ndarray, container: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def loudness(samples: torch.Tensor, rate: int = RATE) -> float:
    import pyloudnorm

    return float(pyloudnorm.Meter(rate).integrated_loudness(samples.double().numpy()))


# What is read.


@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
def test_each_format_is_read_from_a_path_and_from_a_file_object(tmp_path, container, subtype):
    data = encoded(tone().numpy(), container, subtype)
    (tmp_path / "a").write_bytes(data)
    for source in (tmp_path / "a", str(tmp_path / "a"), io.BytesIO(data)):
        samples, rate, warnings = load(source)
        assert (rate, samples.dtype, warnings) == (RATE, torch.float32, [])
        assert samples.shape == (RATE,)
        assert (samples - tone()).square().mean() < 1e-4


def test_samples_in_memory_are_read_with_channels_first_or_last_and_as_integers():
    x = tone()
    stereo = torch.stack([x, 0.5 * x])
    for given in (stereo, stereo.T, stereo.numpy(), stereo.double().numpy()):
        assert torch.allclose(load((given, RATE))[0], 0.75 * x, atol=1e-6)
    assert torch.allclose(load((x.tolist(), RATE))[0], x)
    for dtype in (np.int16, np.int32):
        scaled = (x.double().numpy() * np.iinfo(dtype).max).astype(dtype)
        assert torch.allclose(load((scaled, RATE))[0], x, atol=1e-4)
    assert torch.allclose(load(((x.numpy() * 127 + 128).astype(np.uint8), RATE))[0], x, atol=0.02)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (192_000, 2), (44_100, 8)])
def test_rates_and_channels_up_to_the_limits_are_read(rate, channels):
    samples, got, _ = load(io.BytesIO(encoded(np.tile(tone(0.5, rate).numpy()[:, None], channels), rate=rate)))
    assert (len(samples), got) == (rate // 2, rate)


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        ((tone(peak=4.0).clamp(-1, 1)), RATE, "clipped"),
        (torch.cat([tone(1), torch.zeros(3 * RATE), tone(1)]), RATE, "silent for 3.0 of 5.0 seconds"),
        (tone(rate=8_000), 8_000, "low sample rate (8000 Hz)"),
        (tone().expand(5, -1), RATE, "5 channels"),
    ],
)
def test_what_costs_quality_is_said_once(samples, rate, said):
    _, _, warnings = load((samples, rate))
    assert len(warnings) == 1
    assert said in warnings[0]


# What is refused.


def missing_tail(container: str, subtype: str | None = None) -> io.BytesIO:
    data = encoded(tone().numpy(), container, subtype)
    return io.BytesIO(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no/such/file.wav", "no/such/file.wav does not exist"),
        (".", "is a folder"),
        ("a\0b", "cannot be read"),
        (io.BytesIO(b""), "is empty"),
        (io.BytesIO(b"these are words, not sounds" * 50), "is not a sound file"),
        (io.StringIO("text"), "mode 'rb'"),
        (42, "got int"),
        (missing_tail("WAV"), "truncated"),
        (missing_tail("AIFF"), "truncated"),
        (missing_tail("FLAC"), "broken"),
        (missing_tail("OGG"), "truncated"),
        (missing_tail("OGG", "OPUS"), "truncated"),
        (io.BytesIO(encoded(tone().numpy(), "OGG", "OPUS")[:-1]), "truncated"),
        (missing_tail("MP3"), "truncated"),
        (io.BytesIO(encoded(tone().numpy())[:50]), "truncated"),
        ((tone(0.4), RATE), "0.40 seconds long"),
        ((torch.ones(601 * 8_000, dtype=torch.int16), 8_000), "10.0 minutes long"),
        (io.BytesIO(encoded(np.ones(601 * 8_000, np.int16), rate=8_000)), "10.0 minutes long"),
        ((torch.zeros(RATE), RATE), "silent"),
        ((torch.full((RATE,), 0.5), RATE), "silent"),
        ((tone().index_fill(0, torch.tensor([5]), torch.nan), RATE), "NaN"),
        (io.BytesIO(encoded(np.full(RATE, np.inf), "WAV", "FLOAT")), "infinite"),
        ((tone(), 4_000), "4000 Hz; 8000 to 192000 Hz"),
        ((tone(), 200_000), "200000 Hz"),
        ((tone().expand(9, -1), RATE), "9 channels; 1 to 8"),
        ((tone()[None, None], RATE), "shape (1, 1, 16000)"),
        ((["a", "b"], RATE), "real numbers"),
        ((tone(), "fast"), "sample rate"),
        ((tone(), 16_000.5), "whole number"),
        ((torch.zeros(0), RATE), "holds no samples"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(source, said):
    with pytest.raises(PromptError) as caught:
        load(source)
    assert said in str(caught.value)


def test_a_stream_that_did_not_know_its_length_is_read():
    data = bytearray(encoded(tone().numpy()))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert load(io.BytesIO(bytes(data)))[0].shape == (RATE,)


# What is made of it.


def test_resampling_keeps_the_tone_and_the_length():
    x = resample(tone(rate=48_000), 48_000, RATE)
    assert x.shape == (RATE,)
    assert torch.allclose(x[500:-500], tone()[500:-500], atol=1e-3)
    assert resample(x, RATE, RATE) is x
    assert abs(len(resample(torch.zeros(44_099), 44_099, RATE)) - RATE) <= 2


def test_trimming_leaves_a_tenth_of_a_second():
    silence = torch.zeros(RATE)
    trimmed = trim(torch.cat([silence, tone(), silence]), RATE)
    assert abs(len(trimmed) - 1.2 * RATE) < 0.08 * RATE
    whole = tone()
    assert abs(len(trim(whole, RATE)) - len(whole)) < 0.05 * RATE


@pytest.mark.parametrize("peak", [0.001, 0.05, 0.9])
def test_levelling_reaches_the_loudness(peak):
    assert loudness(level(tone(2.0, peak=peak), RATE)) == pytest.approx(-23.0, abs=0.1)


def test_levelling_never_passes_the_peak_and_copes_with_short_and_silent_sounds():
    clicks = 0.01 * tone(2.0)
    clicks[::4000] = 0.5
    assert level(clicks, RATE).abs().max() <= PEAK + 1e-6
    short = level(tone(0.2, peak=0.01), RATE)
    assert 10 * short.double().square().mean().log10() - 0.691 == pytest.approx(-23.0, abs=0.1)
    assert torch.equal(level(torch.zeros(RATE), RATE), torch.zeros(RATE))
    assert level(torch.zeros(0), RATE).shape == (0,)


def test_a_prompt_of_several_recordings_is_joined_and_each_warning_names_its_recording():
    samples, warnings = read_prompt([(tone(2), RATE), (tone(2, 8_000), 8_000)], 24_000)
    assert abs(len(samples) - 4 * 24_000) < 0.1 * 24_000
    assert [w.split(" has")[0] for w in warnings] == ["Recording 2"]
    assert loudness(samples, 24_000) == pytest.approx(-23.0, abs=0.5)
    with pytest.raises(PromptError, match="list of recordings is empty"):
        read_prompt([], RATE)


def test_a_short_prompt_is_read_with_a_warning():
    assert "only 1.0 seconds" in read_prompt((tone(1.0), RATE), RATE)[1][0]


def test_recordings_that_are_too_long_together_are_refused(monkeypatch):
    monkeypatch.setattr("tts.audio.SECONDS", (0.5, 3.0))
    with pytest.raises(PromptError, match="2 recordings with"):
        read_prompt([(tone(2), RATE)] * 2, RATE)


# What is written.


@pytest.mark.parametrize("extension", FORMATS)
def test_a_saved_file_reads_back_with_its_provenance_and_nothing_beside_it(tmp_path, extension):
    path = save(tmp_path / f"a{extension}", tone(), RATE, seed=3, model="base-en")
    samples, rate, _ = load(path)
    assert (rate, len(samples)) == (RATE, RATE)
    assert (samples - tone()).square().mean() < 1e-4
    assert json.loads(soundfile.SoundFile(path).comment) == {"seed": 3, "model": "base-en"}
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["no/folder/a.wav", "a.xyz", "a", "a\0.wav", "taken.wav", "file.wav/a.wav"])
def test_a_path_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name):
    (tmp_path / "taken.wav").mkdir()
    (tmp_path / "file.wav").write_bytes(b"")
    with pytest.raises(OutputError):
        save(tmp_path / name, tone(), RATE)
    assert sorted(os.listdir(tmp_path)) == ["file.wav", "taken.wav"]


def test_a_rate_that_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"22050 Hz.*try \.wav"):
        save(tmp_path / "a.opus", tone(), 22_050)
    assert os.listdir(tmp_path) == []


def test_a_write_that_dies_halfway_leaves_the_old_file(tmp_path, monkeypatch):
    path = save(tmp_path / "a.wav", tone(), RATE)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        save(path, tone(2.0), RATE)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


# The mel.


@pytest.mark.parametrize(("padding", "N", "T"), [("same", 3200, 10), ("same", 3201, 11), ("same", 1, 1), ("center", 3200, 11)])
def test_a_mel_has_the_frames_its_recipe_promises(padding, N, T):
    recipe = MelRecipe(padding=padding)
    frames = MelEncoder(recipe).encode(Wave.of(torch.randn(N), RATE))
    assert frames.data.shape == (1, 80, T)
    assert frames.lengths.tolist() == [T]
    assert frames.spec.rate == Fraction(50)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("sizes", [{}, {"sample_rate": 24_000, "bands": 100, "high": 12_000.0}, {"low": 80.0, "high": 7_600.0}])
def test_filters_are_those_of_torchaudio(scale, sizes):
    from torchaudio.functional import melscale_fbanks

    recipe = MelRecipe(scale=scale, **sizes)
    theirs = melscale_fbanks(
        recipe.n_fft // 2 + 1, recipe.low, recipe.high, recipe.bands, recipe.sample_rate, None, recipe.scale
    )
    assert torch.allclose(mel_filters(recipe)[1], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", [{"scale": "bark"}, {"padding": "none"}])
def test_a_mel_of_no_known_kind_is_refused(change):
    with pytest.raises(SettingsError, match="must be one of"):
        MelRecipe(**change)


def test_a_flavour_names_every_number_of_the_recipe():
    for change in (
        {"n_fft": 2048},
        {"floor": 1e-3},
        {"high": 7_000.0},
        {"scale": "slaney"},
        {"power": 2},
        {"padding": "center"},
    ):
        assert MelRecipe(**change).spec != MelRecipe().spec


def test_a_tone_is_loudest_in_its_own_band_and_silence_lies_on_the_floor():
    def band(hertz: float) -> int:
        return int(log_mel(tone(hertz=hertz)[None])[0].mean(1).argmax())

    assert band(200.0) < band(1_000.0) < band(5_000.0)
    assert torch.allclose(log_mel(torch.zeros(1, RATE)), torch.tensor(1e-5).log())


def test_importing_audio_imports_no_sound_library():
    program = "import sys, tts.audio; print({'librosa', 'scipy', 'soundfile', 'torchaudio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
