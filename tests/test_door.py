"""Input at the door: what is accepted is spoken, with a warning where quality suffers; the rest is refused in a sentence."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import RATE, speech
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tts import Synthesizer
from tts.errors import (
    CheckpointError,
    FitError,
    InputError,
    LanguageError,
    OutputError,
    PromptError,
    SettingsError,
    TextError,
)
from tts.prompts import best_window, cut
from tts.voices import load_voice, save_voice

FAST = {"steps": 1}


def say(synthesizer, text="One.", prompt=None, **options):
    return synthesizer.synthesize(text, prompt, **{"settings": FAST, "check": False, **options})


def warned(audio, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in audio.report.warnings)


# ---------------------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_rates_and_channels_are_accepted(tiny, rate, channels):
    samples = np.stack([speech(1.0, rate)] * channels, axis=1)
    audio = say(tiny, prompt=(samples, rate))
    assert len(audio.samples) > 0
    assert warned(audio, "low sample rate") == (rate == 8_000)
    assert warned(audio, "channels") == (channels == 8)


def test_clipping_and_silence_are_accepted_with_a_warning(tiny):
    assert warned(say(tiny, prompt=(speech(2.0).clip(-0.02, 0.02) * 50, RATE)), "clipped")
    padded = np.concatenate([speech(1.0), np.zeros(3 * RATE, np.float32), speech(1.0)])
    assert warned(say(tiny, prompt=(padded, RATE)), "silent")


def test_a_file_object_and_a_list_of_recordings_are_accepted(tiny, recording):
    with recording.open("rb") as file:
        assert len(say(tiny, prompt=file).samples)
    joined = tiny.encode_prompt([recording, (speech(1.0), RATE)])
    assert joined.seconds == pytest.approx(tiny.encode_prompt(recording).seconds + 1.0, abs=0.1)


def test_of_a_minute_the_best_twelve_seconds_are_used(tiny):
    encoded = tiny.encode_prompt((speech(60.0), RATE))
    assert 1.0 < encoded.seconds <= 12.0
    assert any("60.0 seconds" in warning and "clearest" in warning for warning in encoded.warnings)
    prompt = encoded.prompt
    assert int(prompt.token_frames.sum()) == prompt.frames["mel"].data.shape[2] == int(prompt.frames["mel"].lengths)


def test_the_best_window_is_the_clearest_between_silences():
    """Blank, a mumble, blank, clear speech, blank."""
    log_probs = torch.full((100, 3), -10.0)
    log_probs[:, 0] = -0.01
    for start, end, clear in ((10, 40, 0.4), (60, 90, 0.9)):
        log_probs[start:end, 0] = -10.0
        log_probs[start:end, 1] = float(np.log(clear))
    start, end = best_window(log_probs, 55)
    assert start in range(40, 60) and end in range(90, 101)
    assert best_window(log_probs[60:90], 20) == (0, 20)  # no silence to cut in


def test_a_cut_keeps_what_sounds_inside():
    assert cut([5, 6, 7, 8], [3, 0, 4, 3], 2, 8) == ([5, 7, 8], [1, 4, 1])


def test_a_wrong_transcript_is_told_and_the_prompt_is_read(tiny, monkeypatch):
    monkeypatch.setattr("tts.prompts.MISFIT", 0.0)
    encoded = tiny.encode_prompt((speech(1.1), RATE), "Something else entirely.")
    assert any("does not seem to be" in warning for warning in encoded.warnings)
    monkeypatch.setattr("tts.prompts.MISFIT", 1e9)
    told = tiny.encode_prompt((speech(2.2), RATE), "One and two.")
    asked = tiny.parts.front_end.encode("One and two.", "en-us")
    heard = told.prompt.tokens.ids[0].tolist()  # a long silence may have become a comma
    assert len(heard) == len(asked) and heard[1] == asked[1] and not told.warnings


def test_a_phone_here_and_there_is_noise_however_sure_the_recognizer_is(tiny, monkeypatch):
    """Of noise and of a tone a trained recognizer hears about one phone a second, with confidence."""
    recognizer = tiny.parts.recognizer
    posteriors = recognizer.posteriors
    for number, (every, is_noise) in enumerate(((50, True), (5, False))):  # frames from one phone to the next, of 50 a second

        def hear(frames, every=every):
            heard = posteriors(frames)
            data = torch.full_like(heard.data, -9.0)
            data[:, 0] = -0.1
            data[:, :, ::every] = -9.0
            data[:, 1, ::every] = -0.1
            return replace(heard, data=data)

        monkeypatch.setattr(recognizer, "posteriors", hear)
        warnings = tiny.encode_prompt((speech(4.0 + number / 3), RATE)).warnings
        assert any("Hardly any speech" in warning for warning in warnings) == is_noise


def test_the_same_recording_is_heard_once(tiny, recording, monkeypatch):
    first = tiny.encode_prompt(recording)
    monkeypatch.setattr(tiny.parts.recognizer, "posteriors", None)
    assert tiny.encode_prompt(str(recording)) is first
    with recording.open("rb") as file:
        assert tiny.encode_prompt(file) is first


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_unicode_is_spoken_or_refused_in_a_sentence(tiny, text):
    try:
        assert len(say(tiny, text).samples)
    except InputError as error:
        assert len(str(error)) > 20


@pytest.mark.parametrize(
    "text", ["Ünïcödé \u200b\u202e text\x00.", "Hello \ud800 there.", "你好 hello.", "a" * 300, "1" * 60, "x. " * 5]
)
def test_odd_texts_are_spoken(tiny, text):
    assert len(say(tiny, text).samples)


# ----------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("text", ["", " \n\t ", "😀🎉", "\x00\x07", "...", "[pause:1]", None, 5])
def test_texts_without_words_are_refused(tiny, text):
    with pytest.raises(TextError):
        say(tiny, text)


@pytest.mark.parametrize("text", ["One [pause:99] two. Three.", "One [pause:x] two. Three.", "[word](/123/) is. Three."])
def test_wrong_marks_are_refused(tiny, text):
    with pytest.raises(TextError, match="got"):
        say(tiny, text)


@pytest.mark.parametrize("language", ["tlh", "xx", "", "fr-fr"])
def test_languages_that_are_not_spoken_are_refused(tiny, language):
    with pytest.raises(LanguageError):
        say(tiny, language=language)


def broken(kind: str, folder: Path) -> object:
    """A prompt that nobody can use."""
    path = folder / "prompt.wav"
    soundfile.write(path, speech(1.0), RATE)
    whole = path.read_bytes()
    files = {
        "empty": b"",
        "truncated": whole[:9000],
        "not audio": b"this is a text, and not a short one" * 50,
        "header": whole[:44],
    }
    arrays = {
        "silent": np.zeros(RATE), "not a number": np.full(RATE, np.nan), "short": speech(0.4), "no samples": np.zeros(0),
    }  # fmt: skip
    if kind in files:
        path.write_bytes(files[kind])
        return path
    if kind in arrays:
        return arrays[kind], RATE
    others = {
        "missing": folder / "nothing.wav", "a folder": folder, "long": (np.zeros(601 * 8000, np.float32), 8000),
        "too slow": (speech(1.0), 4000), "too fast": (speech(1.0), 400_000), "nine channels": (np.ones((RATE, 9)), RATE),
        "a number": 5, "no list": [], "a text file": io.StringIO("words"), "no such voice": "voice:nobody",
    }  # fmt: skip
    return others[kind]


KINDS = ("empty", "truncated", "not audio", "header", "silent", "not a number", "short", "no samples", "missing", "a folder",
         "long", "too slow", "too fast", "nine channels", "a number", "no list", "a text file", "no such voice")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_that_nobody_can_use_are_refused(tiny, tmp_path, kind):
    with pytest.raises(PromptError) as refused:
        say(tiny, prompt=broken(kind, tmp_path))
    assert len(str(refused.value)) > 25


def test_a_transcript_without_words_is_refused_as_such(tiny):
    for text in ("😀", "", 5):
        with pytest.raises(TextError, match="prompt_text"):
            say(tiny, prompt=(speech(1.0), RATE), prompt_text=text)


UNKNOWN = ({"backend": "flaw"}, {"settings": {"stepz": 4}}, {"settings": {"steps": 0}}, {"settings": {"steps": "x"}},
           {"settings": [1]})  # fmt: skip


def test_a_transcript_of_what_is_no_recording_is_refused(tiny, recording):
    for voice in (None, "voice:tiny", tiny.encode_prompt(recording)):
        with pytest.raises(SettingsError, match="prompt_text"):
            say(tiny, prompt=voice, prompt_text="One.")


@pytest.mark.parametrize("options", UNKNOWN)
def test_unknown_backends_and_settings_are_refused(tiny, options):
    with pytest.raises(SettingsError):
        say(tiny, **options)


@pytest.mark.parametrize("name", ["nowhere/a.wav", "a.xyz", "a", "taken.wav", "bad\0name.wav"])
def test_paths_that_cannot_be_written_are_refused_and_nothing_is_left(tiny, tmp_path, name):
    (tmp_path / "taken.wav").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError):
        say(tiny).save(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def copy(tiny_folder, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "system"))


def edit(folder: Path, change) -> None:
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def test_a_truncated_part_is_refused_by_name(copy):
    (part,) = copy.glob("vocoder-*.safetensors")
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"vocoder.*truncated"):
        Synthesizer.from_pretrained(copy)


def test_another_format_version_is_refused(copy):
    edit(copy, lambda values: values.update(format=99))
    with pytest.raises(CheckpointError, match="99"):
        Synthesizer.from_pretrained(copy)


def test_an_unknown_key_or_part_in_the_config_is_refused(copy):
    edit(copy, lambda values: values.update(nmae="x"))
    with pytest.raises(CheckpointError, match="nmae"):
        Synthesizer.from_pretrained(copy)
    edit(copy, lambda values: (values.pop("nmae"), values["parts"]["vocoder"].update(type="vocoss")))
    with pytest.raises(CheckpointError, match="vocos"):
        Synthesizer.from_pretrained(copy)


def test_weights_of_other_sizes_and_tables_of_other_symbols_are_refused(copy):
    edit(copy, lambda values: values["tables"]["phones"].append("new"))
    with pytest.raises(FitError, match="phones"):
        Synthesizer.from_pretrained(copy)
    edit(copy, lambda values: (values["tables"]["phones"].pop(), values["parts"]["vocoder"]["config"].update(dim=32)))
    with pytest.raises(CheckpointError, match="vocoder"):
        Synthesizer.from_pretrained(copy)


def test_a_folder_without_a_checkpoint_and_an_unknown_name_are_refused(tmp_path):
    for name in (tmp_path, tmp_path / "nothing", "base-xx", ""):
        with pytest.raises(CheckpointError):
            Synthesizer.from_pretrained(name)


def test_a_broken_or_foreign_voice_is_refused(tiny, copy):
    voice = copy / "voices/tiny.safetensors"
    whole = voice.read_bytes()
    encoder, table = tiny.parts.encoder, tiny.parts.front_end.table
    voice.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors"):
        load_voice(copy, "tiny", encoder, table)
    voice.write_bytes(whole)
    with pytest.raises(FitError):
        load_voice(copy, "tiny", encoder, "another table")
    voice.unlink()
    with pytest.raises(PromptError, match="has no voice"):
        say(Synthesizer.from_pretrained(copy))
    save_voice(copy, "mine", tiny.encode_prompt((speech(1.0), RATE)))
    assert load_voice(copy, "mine", encoder, table).seconds == pytest.approx(1.0, abs=0.05)
