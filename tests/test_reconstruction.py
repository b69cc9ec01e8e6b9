"""A copy lies sample beside sample with its recording, whatever its length; what cannot be copied is refused in a sentence."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, speech

from tts import Synthesizer, reconstruction
from tts.audio import MelEncoder, resample
from tts.checkpoint import Checkpoint, load
from tts.errors import CheckpointError, FitError, InputError, PromptError, SettingsError
from tts.frames import Frames, FrameSpec, Wave
from tts.reconstruction import bits_per_second, count_codebooks, reconstruct

K = 8  # codebooks of the tiny system


CODED = ("backend.ar", "backend.masked", "backend.mixed")


def changed(folder, role="backend.ar", **changes):
    """The checkpoint of a folder with other values in the config of one part; no values: without that part.

    Without the backends of codes anyway, which speak those of one codec only.
    """
    loaded = load(folder)
    parts = {name: part for name, part in loaded.system.parts.items() if name not in (role, *CODED)}
    if changes:
        part = loaded.system.parts[role]
        parts[role] = replace(part, config={**part.config, **changes})
    return replace(loaded, system=replace(loaded.system, parts=parts))


# ------------------------------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("N", [1, 319, 320, 5001])
def test_a_copy_has_the_samples_of_its_recording_at_the_systems_rate(tiny, rate, N):
    samples = speech(1.0, rate)[:N]
    copy = tiny.reconstruct((samples, rate))
    assert copy.sample_rate == RATE and copy.samples.dtype == np.float32
    assert len(copy.samples) == len(resample(torch.from_numpy(samples), rate, RATE))


def test_a_copy_is_what_encoder_codec_and_vocoder_make(tiny):
    sound = torch.from_numpy(speech(0.5))
    encoder, codec, vocoder = tiny.parts.encoder, tiny.parts.codec, tiny.parts.vocoder
    wave = Wave.of(sound, RATE)
    frames = {0: encoder.encode(wave), 3: codec.embed(codec.encode(wave), 3), K: codec.embed(codec.encode(wave))}
    for n, given in frames.items():
        expected = vocoder.decode(given).samples[0, : len(sound)]
        np.testing.assert_allclose(tiny.reconstruct((sound, RATE), n).samples, expected.numpy(), atol=1e-6)
    every, one = (tiny.reconstruct((sound, RATE), n).samples for n in (None, 1))
    assert np.array_equal(every, tiny.reconstruct((sound, RATE), K).samples) and not np.array_equal(every, one)


def test_a_path_and_an_open_file_are_copied_alike_and_silence_as_well(tiny, recording):
    with recording.open("rb") as file:
        copies = [tiny.reconstruct(source).samples for source in (str(recording), recording, file)]
    assert np.array_equal(copies[0], copies[1]) and np.array_equal(copies[0], copies[2])
    assert len(tiny.reconstruct((np.zeros(1000, np.float32), RATE)).samples) == 1000


@pytest.mark.parametrize("n", [0, K])
def test_pieces_of_a_long_recording_join_to_what_the_whole_is(tiny, monkeypatch, n):
    sound = torch.from_numpy(speech(13.0))
    parts = (tiny.parts.encoder, tiny.parts.vocoder, tiny.parts.codec, n)
    whole = reconstruct(sound, *parts)
    monkeypatch.setattr(reconstruction, "PIECE", 128)  # 2.56 seconds, so six pieces
    torch.testing.assert_close(reconstruct(sound, *parts), whole, atol=1e-5, rtol=0)


def test_no_network_is_given_more_than_a_piece_and_its_surroundings(tiny, monkeypatch):
    monkeypatch.setattr(reconstruction, "PIECE", 128)
    seen = []
    encode = MelEncoder.encode
    monkeypatch.setattr(MelEncoder, "encode", lambda self, wave: seen.append(wave.samples.shape[1]) or encode(self, wave))
    assert len(tiny.reconstruct((speech(20.0), RATE)).samples) == 20 * RATE
    assert len(seen) == -(-1000 // 128) and max(seen) < 12 * RATE


def test_a_vocoder_that_leaves_out_the_last_samples_is_filled_up_with_silence():
    class Halves:
        """400 samples a frame on a "center" grid: (T - 1) * 400."""

        emits = accepts = FrameSpec("mel", 1, 40)
        context = (0, 0)
        sample_rate = RATE

        def encode(self, wave: Wave) -> Frames:
            T = wave.samples.shape[1] // 400 + 1
            return Frames(torch.ones(1, 1, T), torch.tensor([T]), self.emits)

        def decode(self, frames: Frames) -> Wave:
            return Wave.of(torch.ones((frames.data.shape[2] - 1) * 400), RATE)

    copy = reconstruct(torch.zeros(1000), Halves(), Halves(), n_codebooks=0)
    assert copy.tolist() == [1.0] * 800 + [0.0] * 200


def test_the_report_tells_the_bit_rate_and_the_time(tiny, tmp_path):
    alone, all_books, one = (tiny.reconstruct((speech(1.0), RATE), n) for n in (0, None, 1))
    assert [audio.report.n_codebooks for audio in (alone, all_books, one)] == [0, K, 1]
    assert [audio.report.bits_per_second for audio in (alone, all_books, one)] == [None, 25 * 4 * K, 25 * 4]
    assert set(all_books.report.stages) == {"read", "codec", "vocoder"}
    assert set(alone.report.stages) == {"read", "encoder", "vocoder"}
    assert all_books.report.seconds == 1.0
    assert all_books.report.spent_seconds == pytest.approx(all_books.report.real_time_factor)
    path = one.save(tmp_path / "copy.wav")
    assert '"n_codebooks": 1' in soundfile.SoundFile(path).comment and "tiny" in soundfile.SoundFile(path).comment


def test_bits_are_those_of_equally_likely_codes():
    spec = FrameSpec("codes", 3, 25, (1024, 1024, 8))
    assert [bits_per_second(spec, n) for n in range(4)] == [0, 250, 500, 575]


# ----------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("n", [-1, K + 1, 100, 1.0, True, "1"])
def test_a_count_of_codebooks_out_of_range_is_refused_with_the_range(tiny, n):
    with pytest.raises(SettingsError, match=rf"1\.\.{K}.*0 for the vocoder.*got {n!r}"):
        tiny.reconstruct((speech(1.0), RATE), n)


def test_what_cannot_be_read_is_refused(tiny, tmp_path):
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), RATE)
    for source in (empty, (np.zeros(0, np.float32), RATE), io.BytesIO(b""), tmp_path / "missing.wav", 5, None,
                   (np.full(100, np.nan), RATE), (speech(1.0), 500)):  # fmt: skip
        with pytest.raises(PromptError) as refused:
            tiny.reconstruct(source)
        assert isinstance(refused.value, InputError) and len(str(refused.value)) > 25


def test_a_system_without_a_codec_speaks_and_copies_by_its_vocoder_alone(tiny_folder):
    system = Synthesizer(changed(tiny_folder, "codec"))
    assert system.parts.codec is None
    assert len(system.reconstruct((speech(1.0), RATE), 0).samples) == RATE
    for n in (None, 8):
        with pytest.raises(SettingsError, match="no codec"):
            system.reconstruct((speech(1.0), RATE), n)
    assert count_codebooks(None, 0) == 0
    assert len(system.synthesize("One.", check=False, settings={"steps": 1}).samples)


def test_a_codec_that_does_not_fit_is_refused_when_the_system_is_loaded(tiny_folder, monkeypatch):
    for changes, wrong in (({"floor": 1e-3}, r"flavour: .*floor 0\.001.* against"), ({"hop": 160}, "rate: 100 against 50")):
        with pytest.raises(FitError, match=f"codec does not fit the vocoder: {wrong}"):
            Synthesizer(changed(tiny_folder, "codec", mel=changes))
    build = Checkpoint.build

    def of_latents(self, role):
        part = build(self, role)
        if role == "codec":
            part.embeds = FrameSpec("latents", 64, 50)
        return part

    monkeypatch.setattr(Checkpoint, "build", of_latents)
    with pytest.raises(FitError, match="codec does not fit the vocoder: kind: latents against mel; width: 64 against 80"):
        Synthesizer(changed(tiny_folder))


def test_a_codec_for_sound_at_another_rate_is_refused_when_the_system_is_loaded(tiny_folder, monkeypatch):
    build = Checkpoint.build

    def faster(self, role):
        part = build(self, role)
        if role == "codec":
            part.sample_rate = 24_000
        return part

    monkeypatch.setattr(Checkpoint, "build", faster)
    with pytest.raises(FitError, match=r"codec of .* 24000 Hz, and the system says 16000 Hz"):
        Synthesizer.from_pretrained(tiny_folder)


@pytest.mark.parametrize(
    "changes", [{"rvq": {"codebooks": 4}}, {"rvq": {"size": 32}}, {"stride": 1}, {"quantizer": "gfsq"}], ids=str
)
def test_a_codec_whose_books_codes_or_rate_are_not_those_of_its_weights_is_refused(tiny_folder, changes):
    codec = load(tiny_folder).system.parts["codec"].config
    changes = {name: {**codec["rvq"], **value} if isinstance(value, dict) else value for name, value in changes.items()}
    with pytest.raises(CheckpointError, match=r"codec of .* tensor '.*' .* its config"):
        Synthesizer(changed(tiny_folder, "codec", **changes))
