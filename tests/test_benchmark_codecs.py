"""The comparison of codecs measures runs over mels, runs over waveforms and systems alike."""

import importlib.util
import json
import sys
from fractions import Fraction

import pytest
import torch
from conftest import ROOT, speech

from tts.audio import MelRecipe, log_mel
from tts.errors import FitError, SettingsError
from tts.eval.measures import Meters
from tts.eval.probes import UNKNOWN, LanguageProbeConfig, PhoneProbeConfig
from tts.eval.protocols import Item, write_protocol
from tts.text.tokens import PHONES
from tts.train import data
from tts.train.run import train

MEL = MelRecipe().spec
K_AE_T = [PHONES.recognizer_symbols.index(phone) for phone in ("k", "æ", "t")]


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/codecs.py as a module, with probes of two steps and without instruments that are downloaded."""
    spec = importlib.util.spec_from_file_location("codecs_benchmark", ROOT / "benchmarks/codecs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    module.PHONE_PROBE = PhoneProbeConfig(width=8, steps=2, rows=2)
    module.LANGUAGE_PROBE = LanguageProbeConfig(width=8, steps=2, rows=2)
    module.make_meters = lambda ears, out: Meters(asr=None, speaker=None, quality=None, phones=ears.errors)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four clips of about a second that end in a cat of 30 frames; the last one is not aligned."""
    folder = tmp_path_factory.mktemp("corpus") / "toy"
    ids = [PHONES.id(symbol) for symbol in (" ", "k", "ˈæ", "t")]
    rows = []
    with data.CorpusWriter(folder, {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": MEL.flavour}) as writer:
        for i in range(4):
            samples = torch.from_numpy(speech(1.0 + 0.02 * i, hz=100.0 + 20 * i))
            mel = log_mel(samples[None])[0]  # [bands, T]
            T = mel.shape[1]
            rows.append([T - 30, 10, 10, 10])
            writer.add(data.Item(f"{i}", "a", "toy", "F", "en-us", T / 50, "cat", T, len(samples), tuple(ids)), mel, samples)
    data.save_alignment(folder, [ids] * 4, rows, [-1.0] * 3 + [-9.0])
    return folder


def test_runs_and_systems_get_a_row_each_and_are_measured_once(benchmark, corpus, tiny_folder, tmp_path, monkeypatch):
    for package in ("pesq", "pystoi", "librosa", "matplotlib"):
        pytest.importorskip(package)
    import soundfile

    runs = []
    for name, what, config in (("mel", "codec", "codec.yaml"), ("wave", "waveform-codec", "waveform-codec.yaml")):
        words = [f"train={corpus}", f"valid={corpus}", f"out={tmp_path / name}", "loop.validate_every=1"]
        runs.append(f"{name}={train(what, ROOT / 'configs/tiny' / config, words)}")
    soundfile.write(tmp_path / "a.wav", speech(1.0), 16_000)
    write_protocol([Item("a", "cat", tmp_path / "a.wav", recording=tmp_path / "a.wav")], tmp_path / "protocol.tsv")
    asked = {"protocol": tmp_path / "protocol.tsv", "train": corpus, "valid": corpus, "system": str(tiny_folder), "threads": 1}
    benchmark.main([*runs, f"system={tiny_folder}"], **asked, out=tmp_path / "out")

    found = json.loads((tmp_path / "out/codecs.json").read_text("utf-8"))
    assert [row["name"] for row in found["rows"]] == ["mel", "wave", "system"]
    for row, K, V in zip(found["rows"], (2, 2, 8), (8, 8, 16), strict=True):
        assert len(row["perplexity"]) == len(row["language"]["bits"]) == K
        assert all(1 <= value <= V for value in row["perplexity"])
        assert {f"codec {K}", f"codec {K // 2}", "recordings"} <= row["copies"].keys()
        assert 1 <= row["copies"][f"codec {K}"]["metrics"]["pesq"]["value"] <= 4.65
        assert 0 < row["phone_errors_of_mel"]["frames"] <= 1
    assert [row["trained_steps"] for row in found["rows"]] == [2, 2, None]
    assert [len(found["curves"][name]["mel_l1"]) for name in ("mel", "wave", "system")] == [2, 2, 0]
    table = (tmp_path / "out/codecs.md").read_text("utf-8")
    assert "| mel, 2 books | 0.15 | 2 × 8 at 25 Hz |" in table
    assert "| mel, 1 books | 0.07 | 1 × 8 at 25 Hz |" in table  # 75 bits a second
    assert "| vocoder alone |" in table
    assert (tmp_path / "out/codecs.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(benchmark, "probe", None)
    benchmark.main(runs, **asked, out=tmp_path / "out")
    assert json.loads((tmp_path / "out/codecs.json").read_text("utf-8"))["rows"] == found["rows"][:2]


def test_the_phones_of_a_code_are_those_of_its_mel_frames(benchmark, corpus):
    clips = benchmark.Clips(corpus, MEL, 16_000, audio=False)
    assert sorted(clips.chosen) == [0, 1, 2]
    i = clips.chosen.index(0)

    def phones(rate, T):
        return clips.phones(MEL.rate / rate, [torch.zeros(1, T)] * 3)[i]

    T = clips.corpus.item(0).frames
    one = torch.tensor([0] * (T - 30) + [phone for phone in K_AE_T for _ in range(10)])
    assert phones(50, T)[:, 0].equal(one)
    assert phones(25, T // 2).flatten().equal(one[: T // 2 * 2])
    assert phones(50, T + 2).flatten().tolist() == [*one.tolist(), UNKNOWN, UNKNOWN]
    at_75 = phones(75, T * 3 // 2)  # three codes on two frames
    assert at_75.shape == (T * 3 // 2, 1)
    assert at_75[::3, 0].equal(one[::2])


def test_probes_learn_from_as_many_hours_as_they_are_given(benchmark, corpus):
    assert len(benchmark.Clips(corpus, MEL, 16_000, False, hours=1.5 / 3600).chosen) == 2
    few = benchmark.Clips(corpus, MEL, 16_000, False, hours=1e-9).chosen
    assert few == benchmark.Clips(corpus, MEL, 16_000, False).chosen[:1]


def test_what_cannot_be_compared_is_refused(benchmark, corpus, tiny_folder):
    with pytest.raises(SettingsError, match="NAME=FOLDER"):
        benchmark.contender("runs/codec", None)
    with pytest.raises(FitError, match="another mel"):
        benchmark.Clips(corpus, benchmark.FrameSpec("mel", 80, Fraction(50), flavour="other"), 16_000, False)


def test_many_codebooks_are_told_as_a_range(benchmark):
    assert benchmark._each([1.2, 3.8]) == "1 4"
    assert benchmark._each([float(k) for k in range(20)]) == "0 to 19 of 20"
    assert benchmark._books((19,) * 20 + (3,)) == "20 × 19 + 1 × 3"
