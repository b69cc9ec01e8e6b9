"""What is imported from tts: names, words, and the one system that is kept."""

import inspect
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

import tts
from tts import Audio, Synthesizer, api, stream, synthesize

FAST = {"steps": 1}


@pytest.fixture
def default(tiny_folder, monkeypatch):
    """The tiny system in place of the embedded one."""
    monkeypatch.setattr(api, "DEFAULT", str(tiny_folder))
    monkeypatch.setattr(api, "_kept", {})


def test_every_public_name_is_there():
    assert set(tts.__all__) == set(tts._HOMES)
    for name in tts.__all__:
        assert getattr(tts, name).__name__ == name
        assert name in dir(tts)
    with pytest.raises(AttributeError, match="sinthesize"):
        tts.sinthesize  # noqa: B018


def test_import_of_the_package_takes_nothing_along():
    code = "import sys, tts; sys.exit(len({'torch', 'numpy', 'librosa', 'torchaudio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_function_and_method_take_the_same_words():
    for pair in ((synthesize, Synthesizer.synthesize), (stream, Synthesizer.stream)):
        function, method = (list(inspect.signature(f).parameters.values()) for f in pair)
        assert [(p.name, p.kind, p.default) for p in function] == [(p.name, p.kind, p.default) for p in method[1:]]


def test_six_lines_of_python(default, recording, tmp_path):
    audio = synthesize("Hello, you. [world](/wˈɜːld/)", str(recording), seed=7, settings=FAST)
    assert isinstance(audio, Audio) and audio.sample_rate == 16_000
    assert audio.samples.dtype == np.float32 and audio.samples.ndim == 1 and np.abs(audio.samples).max() <= 1
    assert audio.report.seed == 7 and audio.report.seconds == audio.seconds
    path = audio.save(tmp_path / "hello.wav")
    read, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000 and np.allclose(read, audio.samples, atol=1e-4)


def test_a_stream_is_what_is_said_at_once(default):
    chunks = stream("Hello, you.", seed=7)
    whole = synthesize("Hello, you.", seed=7, backend="ar", check=False)
    np.testing.assert_allclose(np.concatenate(list(chunks)), whole.samples, atol=1e-5)


def test_a_file_says_where_it_comes_from_and_not_when(default, tmp_path):
    for name in ("a.wav", "b.wav"):
        synthesize("Hello.", seed=5, settings=FAST).save(tmp_path / name)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    with soundfile.SoundFile(tmp_path / "a.wav") as sound:
        assert '"seed": 5' in sound.comment and '"name": "tiny"' in sound.comment and '"steps": 1' in sound.comment


def test_threads_share_one_system_loaded_once(default, monkeypatch):
    loaded = []
    load = Synthesizer.from_pretrained.__func__
    monkeypatch.setattr(Synthesizer, "from_pretrained", classmethod(lambda cls, name: loaded.append(name) or load(cls, name)))
    threads = [threading.Thread(target=api.default) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1


def test_a_voice_is_named_or_built_in(default):
    named, built_in = (synthesize("One.", voice, settings=FAST).samples for voice in ("voice:tiny", None))
    assert np.array_equal(named, built_in)
    assert api.default().voices == ["tiny"]
