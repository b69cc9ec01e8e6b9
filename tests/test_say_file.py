"""`mynah say --file`: one file of any length, the same bytes wherever it was stopped, and the times of its words beside it."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from tts import Request
from tts.cli import main
from tts.errors import InputError, OutputError, SettingsError
from tts.narration import narrate
from tts.serve import book
from tts.serve.book import read_aloud, stream_aloud
from tts.serve.captions import LINES, LONGEST, WIDTH, cues, write_srt

TEXT = "CHAPTER ONE\n\nOne and two. Three, [pause:0.5] four...\n\nA [mynah](/mˈaɪnə/) says five. " + "Six and seven. " * 4
ASKED = Request(TEXT, settings={"steps": 1}, check=False)


@pytest.fixture
def whole(tiny, tmp_path):
    """The bytes of an undisturbed reading, by extension."""

    def read(extension, request=ASKED):
        out = tmp_path / f"undisturbed{extension}"
        read_aloud(tiny, request, out)
        return out.read_bytes()

    return read


def left_in(folder):
    return {path.name for path in folder.iterdir()}


class Stop(Exception):
    """A run that ends here."""


def stop_after(passages):
    def tell(told):
        if told.passages >= passages:
            raise Stop

    return tell


# -------------------------------------------------------------------------------------------------------------- a reading


def test_the_file_holds_the_passages_and_says_where_it_comes_from(tiny, tmp_path):
    told = []
    done = read_aloud(tiny, ASKED, tmp_path / "a.wav", progress=told.append)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    passages = list(narrate(tiny, ASKED))
    assert np.abs(samples - np.concatenate([p.samples for p in passages])).max() <= 0.5 / 32768 + 1e-7
    with soundfile.SoundFile(tmp_path / "a.wav") as sound:
        assert json.loads(sound.comment) == narrate(tiny, ASKED).provenance
    assert done == told[-1] and [t.passages for t in told] == list(range(len(passages) + 1))
    assert done.letters == done.of_letters and done.seconds == len(samples) / rate
    assert left_in(tmp_path) == {"a.wav"}


@pytest.mark.parametrize("extension", [".ogg", ".opus", ".mp3"])
def test_other_formats_are_as_long(tiny, tmp_path, extension):
    told = read_aloud(tiny, ASKED, tmp_path / f"a{extension}")
    samples, rate = soundfile.read(tmp_path / f"a{extension}")
    assert len(samples) / rate == pytest.approx(told.seconds, abs=0.1)


@pytest.mark.parametrize("extension", [".wav", ".flac"])
def test_it_goes_on_to_the_same_bytes_wherever_it_was_stopped(tiny, tmp_path, whole, extension):
    expected = whole(extension)
    out = tmp_path / f"b{extension}"
    for passages in (0, 1, 3, 4):
        with pytest.raises(Stop):
            read_aloud(tiny, ASKED, out, progress=stop_after(passages))
        assert not out.exists()
    first = []
    read_aloud(tiny, ASKED, out, progress=first.append)
    assert first[0].before == first[0].passages == 4 and first[0].seconds_before > 0
    assert out.read_bytes() == expected and left_in(tmp_path) == {f"undisturbed{extension}", out.name}


def test_what_was_torn_is_made_again(tiny, tmp_path, whole):
    expected = whole(".wav")
    out = tmp_path / "b.wav"
    samples, journal = tmp_path / ".b.wav.samples.part", tmp_path / ".b.wav.journal.part"

    def torn(tear):
        with pytest.raises(Stop):
            read_aloud(tiny, ASKED, out, progress=stop_after(3))
        tear()
        told = []
        read_aloud(tiny, ASKED, out, progress=told.append)
        assert out.read_bytes() == expected
        return told[0].before

    def cut(path, by):
        return lambda: path.write_bytes(path.read_bytes()[:-by])

    def add(path, data):
        return lambda: path.write_bytes(path.read_bytes() + data)

    assert torn(cut(journal, 5)) == 2  # killed within a line
    assert torn(add(journal, b'{"number": 3, "ends"')) == 3
    assert torn(add(samples, b"xyz")) == 3  # killed before its line
    assert torn(cut(samples, 3)) == 2
    assert torn(lambda: samples.unlink()) == 0
    assert torn(lambda: journal.write_bytes(b"\xff not a journal\n")) == 0
    assert torn(lambda: journal.unlink()) == 0


def test_parts_of_another_text_or_option_count_for_nothing(tiny, tmp_path, recording):
    out = tmp_path / "c.wav"
    others = [{"seed": 1}, {"text": TEXT.replace("five", "nine")}, {"settings": {"steps": 2}}, {"prompt": str(recording)}]
    for other in others:
        with pytest.raises(Stop):
            read_aloud(tiny, ASKED, out, progress=stop_after(3))
        told = []
        read_aloud(tiny, replace(ASKED, **other), out, progress=told.append)
        assert told[0].before == 0 and "made anew" in told[0].warnings[-1]
        fresh = tmp_path / "fresh.wav"
        read_aloud(tiny, replace(ASKED, **other), fresh)
        assert out.read_bytes() == fresh.read_bytes()


def test_a_reading_killed_while_it_is_put_in_place_is_only_put_in_place(tiny, tmp_path, whole, monkeypatch):
    expected = whole(".flac")
    out = tmp_path / "d.flac"

    def killed(*_):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(book, "_encode", killed)
        read_aloud(tiny, ASKED, out)
    assert not out.exists()
    monkeypatch.setattr(tiny.parts.vocoder, "decode", killed)  # nothing is made again
    told = read_aloud(tiny, ASKED, out)
    assert out.read_bytes() == expected and told.before == told.passages


def test_two_readings_do_not_write_one_file(tiny, tmp_path):
    def tell(told):
        if told.passages == 1:
            with pytest.raises(OutputError, match="another reading is writing"):
                read_aloud(tiny, ASKED, tmp_path / "e.wav")

    read_aloud(tiny, ASKED, tmp_path / "e.wav", progress=tell)
    assert left_in(tmp_path) == {"e.wav"}


def test_paths_are_looked_at_before_the_work(tiny, tmp_path):
    for out, times, says in [
        (tmp_path / "a.txt", None, "must end in one of"),
        (tmp_path / "none" / "a.wav", None, "cannot be written"),
        (tmp_path / "a.wav", tmp_path / "none" / "a.json", "cannot be written"),
        (tmp_path / "a.wav", tmp_path / "a.wav", "different files"),
    ]:
        with pytest.raises(InputError, match=says):
            read_aloud(tiny, ASKED, out, times, progress=lambda told: pytest.fail("it has begun"))
    assert left_in(tmp_path) == set()


def test_a_wav_that_would_be_too_long_is_refused_and_its_parts_stay(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(book, "MOST_WAV", 1000)
    with pytest.raises(OutputError, match=r"--out .*a\.flac"):
        read_aloud(tiny, ASKED, tmp_path / "a.wav")
    assert left_in(tmp_path) == {".a.wav.samples.part", ".a.wav.journal.part"}


def test_a_stream_is_a_wav_without_an_end(tiny, tmp_path, whole):
    sink = io.BytesIO()
    stream_aloud(tiny, ASKED, sink)
    whole(".wav")
    expected, _ = soundfile.read(tmp_path / "undisturbed.wav", dtype="int16")
    assert sink.getvalue()[:4] == b"RIFF" and sink.getvalue()[36:44] == b"data\xff\xff\xff\xff"
    assert np.array_equal(np.frombuffer(sink.getvalue()[44:], "<i2"), expected)

    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(OutputError, match="Broken pipe"):
        stream_aloud(tiny, ASKED, Closed())


# ------------------------------------------------------------------------------------------------------------------ times


def test_times_and_subtitles_tell_what_the_passages_tell(tiny, tmp_path):
    request = replace(ASKED, check=True)
    with pytest.raises(Stop):
        read_aloud(tiny, request, tmp_path / "a.wav", tmp_path / "a.json", tmp_path / "a.srt", progress=stop_after(2))
    assert not (tmp_path / "a.json").exists()
    told = read_aloud(tiny, request, tmp_path / "a.wav", tmp_path / "a.json", tmp_path / "a.srt")
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    passages = list(narrate(tiny, request))
    assert written["seconds"] == told.seconds and written["seed"] == 0 and len(written["sentences"]) == len(passages)
    for sentence, passage in zip(written["sentences"], passages, strict=True):
        assert sentence["text"] == passage.text and sentence["aligned"] == passage.aligned
        assert sentence["passed"] == all(line.passed for line in passage.sentences)
        assert [(w["word"], w["start"], w["end"]) for w in sentence["words"]] == [
            (word.text, round(word.start, 3), round(word.end, 3)) for word in passage.words
        ]
    subtitles = (tmp_path / "a.srt").read_text(encoding="utf-8")
    numbers = re.findall(r"^(\d+)\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}$", subtitles, re.MULTILINE)
    assert numbers == [str(i + 1) for i in range(len(numbers))] and "A mynah says five." in subtitles
    assert left_in(tmp_path) == {"a.wav", "a.json", "a.srt"}


def evenly(text, seconds=0.4):
    return [(word, i * seconds, (i + 1) * seconds) for i, word in enumerate(text.split())]


def test_subtitles_have_lines_that_can_be_read():
    text = "It was late, and nobody in the house had heard the bird that sat in the tree by the river, singing. " * 3
    made = list(cues(evenly(text)))
    assert " ".join(" ".join(cue.text.split("\n")) for cue in made) == text.strip()
    for cue in made:
        lines = cue.text.split("\n")
        assert len(lines) <= LINES and max(map(len, lines)) <= WIDTH and cue.end - cue.start <= LONGEST
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(made))
    assert made[2].text.endswith("It was late,")  # rather than in the middle of a phrase


def test_a_long_silence_and_an_endless_word_begin_new_subtitles():
    words = [("one", 0.0, 0.5), ("two", 3.0, 3.5), ("x" * 100, 3.5, 4.0), ("three", 4.0, 4.5)]
    assert [cue.text.replace("\n", "") for cue in cues(words)] == ["one", "two", "x" * 100, "three"]
    sink = io.StringIO()
    write_srt(sink, [{"words": [("one", 3599.9996, 3600.1)]}, {"words": [("two", 3600.2, 3600.3)]}])
    assert "1\n01:00:00,000 --> 01:00:00,200\none\n\n2\n01:00:00,200 --> 01:00:01,200\ntwo\n" in sink.getvalue()


# ---------------------------------------------------------------------------------------------------------- the command line


def command(folder, file, out, *more):
    options = ["--system", str(folder), "--set", "steps=1", "--no-check"]
    return [sys.executable, "-m", "tts.cli", "say", "--file", str(file), "--out", str(out), *options, *more]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    return path


def test_the_command_reads_a_file(tiny, tiny_folder, tmp_path, file, capsys, whole):
    words = command(tiny_folder, file, tmp_path / "b.flac", "--srt", str(tmp_path / "b.srt"))
    main_words = words[words.index("say") :]
    with pytest.raises(SystemExit) as ended:
        main(main_words)
    assert ended.value.code == 0 and "b.flac: " in capsys.readouterr().out
    assert (tmp_path / "b.flac").read_bytes() == whole(".flac") and (tmp_path / "b.srt").exists()


@pytest.mark.parametrize(
    ("data", "more", "says"),
    [
        (b"", [], "is empty"),
        (b"* * *\n", [], "holds nothing to say"),
        (b"caf\xe9", [], "is not UTF-8 text"),
        (b"One.", ["--seconds", "3"], "give a speed"),
        (b"One.", ["--times", "."], "cannot be written"),
        (b"One.", ["--out", "-", "--srt", "a.srt"], "written beside a file"),
        (b"[pause:99]One.", [], "a pause lasts"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tiny_folder, tmp_path, capsys, data, more, says):
    path = tmp_path / "book.txt"
    path.write_bytes(data)
    words = command(tiny_folder, path, tmp_path / "b.flac", *more)
    with pytest.raises(SystemExit) as ended:
        main(words[words.index("say") :])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and says in told and told.startswith("mynah: ") and left_in(tmp_path) == {"book.txt"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give a text, or --file"),
        (["One.", "--file", "book.txt"], "give a text, or --file"),
        (["One.", "--times", "a.json"], "go with --file"),
        (["--file", "none.txt"], "none.txt cannot be read"),
    ],
)
def test_a_text_or_a_file(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["say", *words])
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_reading_that_is_killed_goes_on_to_the_same_bytes(tiny_folder, tmp_path, file, whole):
    """By SIGINT once, then by SIGKILL, at any moment."""
    longer = file.read_text(encoding="utf-8-sig") + " Eight and nine. Ten." * 100
    file.write_text(longer, encoding="utf-8")
    expected = whole(".flac", replace(ASKED, text=longer))
    out, kills, chance = tmp_path / "k.flac", 0, random.Random(0)
    journal = tmp_path / ".k.flac.journal.part"
    # whoever runs these tests in the background may have told their children to ignore a Ctrl-C
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    for attempt in range(60):
        before = journal.stat().st_size if journal.exists() else 0
        pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        run = subprocess.Popen(command(tiny_folder, file, out), preexec_fn=heeds, **pipes)
        while run.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if attempt < 4 and run.poll() is None:
            run.send_signal(signal.SIGKILL if attempt else signal.SIGINT)
            kills += 1
        told = run.communicate()[1].decode()
        if attempt == 0:
            assert run.returncode == 130 and "the same command goes on" in told
        if run.returncode == 0:
            break
        assert not out.exists()
    assert kills == 4 and out.read_bytes() == expected
    assert not [name for name in left_in(tmp_path) if name.endswith(".part")]


def test_a_book_to_standard_output_is_a_wav(tiny_folder, tmp_path, file):
    done = subprocess.run(command(tiny_folder, file, "-"), capture_output=True, check=True, env={**os.environ})
    assert done.stdout[:4] == b"RIFF" and len(done.stdout) > 44 + 16_000
    assert b" s" in done.stderr and b" s" not in done.stdout[:44]


def test_settings_are_checked_before_the_work(tiny, tmp_path):
    with pytest.raises(SettingsError, match="did you mean 'steps'"):
        read_aloud(tiny, replace(ASKED, settings={"stepz": 1}), tmp_path / "a.wav")
    assert left_in(tmp_path) == set()
