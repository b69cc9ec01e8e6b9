"""Manifests and folders become corpora; what cannot be read or said is left out and listed."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tts.audio import LOUDNESS, MelRecipe, log_mel
from tts.errors import InputError
from tts.train.data import Corpus, save_alignment
from tts.train.prepare import PrepareConfig, phonemise, prepare

CONFIG = PrepareConfig(workers=1, trim=False)


def record(path: Path, seconds: float = 1.0, rate: int = 22_050) -> None:
    """A tone of 200 Hz with overtones and some noise, as a 16-bit wav."""
    import soundfile

    time = torch.arange(int(seconds * rate)) / rate
    tone = torch.stack([torch.sin(2 * math.pi * 200 * k * time) / k for k in range(1, 6)]).sum(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (0.05 * tone + 0.005 * torch.randn(len(time))).numpy(), rate)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two good clips, one without text, one that is no sound, one that is missing, one whose text is far too long."""
    for name in ("a", "b", "c", "long"):
        record(tmp_path / "clips" / f"{name}.wav")
    (tmp_path / "clips" / "broken.wav").write_bytes(b"RIFF, or not")
    rows = [
        ("path", "corpus", "speaker", "sex", "seconds", "text"),
        ("clips/a.wav", "one", "ann", "F", "1.0", "THE CAT SAT"),
        ("clips/broken.wav", "one", "ann", "F", "1.0", "Never heard."),
        ("clips/b.wav", "two", "bob", "M", "1.0", 'He said "no".'),
        ("clips/missing.wav", "two", "bob", "M", "1.0", "Gone."),
        ("clips/c.wav", "two", "bob", "M", "1.0", ""),
        ("clips/long.wav", "two", "bob", "M", "1.0", "far too much to be said in one second " * 3),
    ]
    path = tmp_path / "train.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_manifest_becomes_a_corpus_and_what_is_broken_is_listed(manifest: Path, tmp_path: Path) -> None:
    done = prepare(manifest, tmp_path / "out", replace(CONFIG, weights={"one": 2.0}))
    corpus = Corpus(tmp_path / "out")
    assert [item.id for item in corpus.items] == ["clips/a", "clips/b", "clips/c"]
    assert [item.text for item in corpus.items] == ["the cat sat", 'He said "no".', ""]
    assert [item.weight for item in corpus.items] == [2.0, 1.0, 1.0]
    assert (corpus.item(1).speaker, corpus.item(1).sex, corpus.item(1).corpus) == ("bob", "M", "two")
    assert dict(done.skipped).keys() == {"clips/broken", "clips/missing", "clips/long"}
    assert all(name in reason for name, reason in done.skipped if name != "clips/long")
    assert "characters a second" in dict(done.skipped)["clips/long"]
    assert done.items == 3 and done.seconds == pytest.approx(3.0, abs=0.01)
    # 16 kHz, 50 frames a second, the house's mel of the stored samples
    assert corpus.item(0).samples == 16_000 and corpus.item(0).frames == 50
    mel = log_mel(corpus.audio(0)[None])[0]
    torch.testing.assert_close(corpus.mel(0), mel, atol=0.05, rtol=0)
    assert corpus.tables["mel"] == MelRecipe().spec.flavour
    # phones
    symbols = corpus.tables["symbols"]
    assert [symbols[i] for i in corpus.item(0).tokens if symbols[i] in "kt"] == ["k", "t", "t"]
    assert corpus.item(2).tokens == ()


def test_clips_are_brought_to_one_loudness(manifest: Path, tmp_path: Path) -> None:
    import pyloudnorm

    prepare(manifest, tmp_path / "out", CONFIG)
    loudness = pyloudnorm.Meter(16_000).integrated_loudness(Corpus(tmp_path / "out").audio(0).double().numpy())
    assert loudness == pytest.approx(LOUDNESS, abs=0.2)


def test_perturbed_copies_are_new_speakers_at_another_speed_and_pitch(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    (tmp_path / "t.tsv").write_text("path\tspeaker\ttext\na.wav\tann\tthe cat sat\n")
    prepare(tmp_path / "t.tsv", tmp_path / "out", PrepareConfig(workers=1, trim=False, perturb=(0.8, 1.25)))
    corpus = Corpus(tmp_path / "out")
    assert [(item.id, item.speaker) for item in corpus.items] == [("a", "ann"), ("a@0.8", "ann@0.8"), ("a@1.25", "ann@1.25")]
    assert [item.samples for item in corpus.items] == pytest.approx([16_000, 20_000, 12_800], abs=2)
    for i, hertz in enumerate((200, 160, 250)):
        spectrum = torch.fft.rfft(corpus.audio(i)).abs()
        assert int(spectrum.argmax()) * 16_000 / corpus.item(i).samples == pytest.approx(hertz, abs=2)
    assert len({item.tokens for item in corpus.items}) == 1


def test_an_ljspeech_folder_is_read_with_its_normalised_texts(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    record(folder / "wavs" / "m1.wav")
    (folder / "metadata.csv").write_text("m1|Dr. Who|doctor who\n")
    prepare(folder, tmp_path / "out", CONFIG)
    item = Corpus(tmp_path / "out").item(0)
    assert (item.id, item.text, item.speaker) == ("m1", "doctor who", "mine") and item.tokens


def test_audio_can_be_left_out(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    (tmp_path / "t.tsv").write_text("path\ttext\na.wav\t\n")
    prepare(tmp_path / "t.tsv", tmp_path / "out", PrepareConfig(workers=1, audio=False))
    tables = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert tables["symbols"] and Corpus(tmp_path / "out").mel(0).shape[0] == 80


def test_texts_can_be_spelled_anew(manifest: Path, tmp_path: Path) -> None:
    prepare(manifest, tmp_path / "out", CONFIG)
    before = Corpus(tmp_path / "out").items
    manifest_file = tmp_path / "out" / "manifest.jsonl"
    rows = [{**json.loads(line), "tokens": []} for line in manifest_file.read_text().splitlines()]
    manifest_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_alignment(tmp_path / "out", [[1], [], []], [[50], [], []], [0.0, 0.0, 0.0])
    assert phonemise(tmp_path / "out") == []
    after = Corpus(tmp_path / "out")
    assert after.items == before and after.alignment is None


def test_an_unpronounceable_text_is_kept_as_sound_without_text(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    record(tmp_path / "b.wav")
    (tmp_path / "t.tsv").write_text("path\ttext\na.wav\t😀 😀 😀 😀\nb.wav\tthe cat\n", encoding="utf-8")
    done = prepare(tmp_path / "t.tsv", tmp_path / "out", CONFIG)
    items = Corpus(tmp_path / "out").items
    assert [(item.text, bool(item.tokens)) for item in items] == [("", False), ("the cat", True)]
    assert [name for name, _ in done.skipped] == ["a"]


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_teacher_says_every_line_with_every_voice(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("HELLO THERE.\n\nThe cat sat on the mat.\n")
    prepare(tmp_path / "lines.txt", tmp_path / "out", PrepareConfig(workers=1), teacher="flite:kal16,slt")
    items = Corpus(tmp_path / "out").items
    assert [item.speaker for item in items] == ["flite-kal16", "flite-slt"] * 2
    assert {item.corpus for item in items} == {"teacher-flite"}
    assert items[0].text == "hello there." and all(item.tokens and item.seconds > 0.5 for item in items)


def test_what_cannot_be_prepared_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a TSV"):
        prepare(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "t.tsv").write_text("file\ttext\n")
    with pytest.raises(InputError, match="no column path"):
        prepare(tmp_path / "t.tsv", tmp_path / "out")
    (tmp_path / "t.tsv").write_text("path\ttext\n")
    with pytest.raises(InputError, match="lists no clips"):
        prepare(tmp_path / "t.tsv", tmp_path / "out")
    (tmp_path / "t.tsv").write_text("path\ttext\na.wav\thello\na.wav\thello\n")
    with pytest.raises(InputError, match="more than once"):
        prepare(tmp_path / "t.tsv", tmp_path / "out")
    (tmp_path / "t.tsv").write_bytes("path\ttext\na.wav\tcafé\n".encode("latin-1"))
    with pytest.raises(InputError, match="as UTF-8"):
        prepare(tmp_path / "t.tsv", tmp_path / "out")
    (tmp_path / "t.tsv").write_text("path\ttext\nnone.wav\thello\n")
    with pytest.raises(InputError, match=r"none\.wav does not exist"):
        prepare(tmp_path / "t.tsv", tmp_path / "out", CONFIG)
    assert {path.name for path in tmp_path.iterdir()} == {"t.tsv"}
