"""The work behind the web page: every button's act with a tiny system, and its sentences; without a browser, without Gradio."""

import json
import threading
import zipfile
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import RATE, speech

from tts.asr.check import Check
from tts.errors import InputError, MissingPackageError, PromptError, SettingsError, TextError
from tts.frames import Request
from tts.result import Sentence
from tts.serve.page.cabinet import Cabinet
from tts.serve.page.studio import BUILT_IN, RECORDING, Streams, Studio, plain, watched
from tts.serve.page.tabs import changed, compared
from tts.serve.page.told import LIKE, heard, sounds, told
from tts.serve.page.uploads import read_upload, speak_upload

pytest.importorskip("PIL", reason="the extra app is not installed")


@pytest.fixture(scope="module")
def studio(tiny):
    return Studio(tiny)


@pytest.fixture
def manifest(tmp_path):
    """A manifest of the given rows under `text` and `prompt`."""

    def write(*rows: tuple[str, str]) -> str:
        path = tmp_path / "lines.tsv"
        path.write_text("\n".join(["id\ttext\tprompt", *(f"{i}\t{text}\t{prompt}" for i, (text, prompt) in enumerate(rows))]))
        return str(path)

    return write


# --------------------------------------------------------------------------------------------------------------- speaking


def test_what_is_spoken_is_a_file_with_provenance_a_picture_and_a_sentence(studio, tiny, tmp_path):
    request = studio.request("One. Two.", seed=3, steps=2)
    *doing, last = studio.speak(request, tmp_path)
    samples, rate = soundfile.read(last.file, dtype="float32")
    assert np.allclose(samples, tiny.speak(request).samples, atol=1e-4) and rate == RATE
    provenance = json.loads(soundfile.SoundFile(last.file).comment)
    assert provenance["seed"] == 3 and provenance["settings"]["steps"] == 2 and last.file.name == "mynah-flow-3.wav"
    assert "<svg" in last.picture and "data:image/png;base64," in last.picture
    assert "recognizer listened" in last.told and "seed 3, 2 steps" in last.told
    assert "2 of 2 sentences" in doing[-1].told


def test_a_stream_is_heard_while_it_is_made_and_listened_to_afterwards(studio, tmp_path):
    request = studio.request("One and two.", backend="ar")
    parts = studio.speak(request, tmp_path)
    next(parts)
    first = next(parts)
    pieces = studio.streams.listen(first.stream)
    began = np.frombuffer(next(pieces), "<i2")
    assert len(began) and first.file is None
    *_, last = parts
    heard_samples = np.concatenate([began, *(np.frombuffer(piece, "<i2") for piece in pieces)])
    samples, _ = soundfile.read(last.file, dtype="int16")
    assert len(samples) == len(heard_samples) and np.abs(samples.astype(int) - heard_samples).max() <= 2
    assert "Afterwards the recognizer" in last.told and "the first sound after" in last.told
    assert studio.streams.listen(first.stream) is None, "a stream is for one listener"


def test_without_play_while_made_a_streaming_backend_is_checked_and_tried_again(studio, tmp_path):
    *_, last = studio.speak(studio.request("One.", backend="ar"), tmp_path, live=False)
    assert last.report.checked and not last.stream


def test_streams_that_nobody_hears_are_forgotten():
    streams = Streams()
    names = []
    for _ in range(40):
        with streams.open() as (name, put):
            put(np.zeros(10, np.float32))
        names.append(name)
    assert streams.listen(names[0]) is None and list(streams.listen(names[-1])) == [bytes(20)]


def test_two_who_speak_at_once_hear_their_own(studio, tiny, tmp_path):
    requests = [studio.request(text, seed=seed) for text, seed in (("One.", 1), ("Two three.", 2), ("Four.", 3))]
    files = {}

    def run(request):
        *_, last = studio.speak(request, tmp_path)
        files[request.seed] = last.file

    threads = [threading.Thread(target=run, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for request in requests:
        samples, _ = soundfile.read(files[request.seed], dtype="float32")
        assert np.allclose(samples, tiny.speak(request).samples, atol=1e-4)


def test_all_backends_are_compared_in_one_voice(studio, recording, tmp_path):
    *_, last = studio.compare(studio.request("One.", RECORDING, str(recording)), tmp_path)
    assert list(last) == ["flow", "ar", "masked", "mixed"] and all(shown.file.exists() for shown in last.values())
    table = compared(last)
    assert table.count("<tr>") == 5 and "masked" in table


def test_an_edit_shows_where_it_is_new(studio, tiny, tmp_path, monkeypatch):
    audio = tiny.synthesize("One.")
    from tts.result import Edit

    edited = replace(audio, report=replace(audio.report, edits=(Edit((0, 10), (800, 1600)),)))
    monkeypatch.setattr(type(tiny), "edit", lambda *_, **__: edited)
    *_, last = studio.edit("me.wav", "One.", "Two.", "flow", 0, tmp_path)
    assert "New is 0.05 to 0.10 s" in last.told and "<i style=" in last.picture


def test_an_edit_that_nobody_waits_for_ends_at_its_next_change(studio, tiny, tmp_path, monkeypatch):
    ended = threading.Event()

    def edit(self, *_, progress, **__):
        try:
            while True:
                progress(1, 2)
        finally:
            ended.set()

    monkeypatch.setattr(type(tiny), "edit", edit)
    work = studio.edit("me.wav", "One.", "Two.", "flow", 0, tmp_path)
    assert "saying the new words" in next(work).told and "1 of 2 changes" in next(work).told
    work.close()
    assert ended.wait(60)


def test_changed_words_are_set_off_and_nothing_is_markup():
    assert changed("the cat sat", "the black dog sat") == (
        "<p class='mynah-changes'>the <del>cat</del> <ins>black dog</ins> sat</p>"
    )
    assert "<script>" not in changed("<script> a", "a")
    assert changed("", "a") == ""


@pytest.mark.parametrize(
    ("form", "error", "says"),
    [
        ({"text": "  "}, TextError, "nothing to say"),
        ({"text": None}, TextError, "nothing to say"),
        ({"text": "One.", "voice": RECORDING}, PromptError, "no recording yet"),
        ({"text": "One.", "seed": 1.5}, SettingsError, "the seed must be a whole number"),
        ({"text": "One.", "steps": 2.5}, SettingsError, "steps must be a whole number"),
    ],
)
def test_a_form_that_is_not_filled_is_refused_in_a_sentence(studio, form, error, says):
    with pytest.raises(error, match=says):
        studio.request(**form)


def test_texts_that_are_too_long_for_one_go_are_sent_to_their_page(studio, tmp_path):
    with pytest.raises(TextError, match="Long text"):
        list(studio.speak(studio.request("word " * 500), tmp_path))


def test_a_named_voice_takes_no_words_of_a_recording(studio):
    assert studio.request("One.", BUILT_IN, "me.wav", "words").prompt_text is None
    assert studio.request("One.", RECORDING, "me.wav", " words ").prompt_text == "words"


def test_who_leaves_stops_the_work_at_its_next_word():
    told_, ended = [], threading.Event()

    def act(tell):
        try:
            for i in range(1000):
                told_.append(i)
                tell(i)
                threading.Event().wait(0.01)
        finally:
            ended.set()

    with closing(watched(act, lambda i: i)) as news:
        assert next(news) == 0
    assert ended.wait(5) and len(told_) < 100


def test_what_is_raised_in_the_work_is_raised_where_it_is_watched():
    def act(tell):
        raise TextError("no")

    with pytest.raises(TextError, match="no"):
        list(watched(act, lambda: None))


# --------------------------------------------------------------------------------------------------------------- sentences


def sentence(**verdict):
    return Sentence("One.", 0, verdict.pop("tries", 1), 1.0, 1.0, **verdict)


def test_every_phone_of_the_recognizer_has_a_word_that_it_is_like(tiny):
    assert set(tiny.parts.recognizer.symbols[1:]) == set(LIKE)
    assert all(word.count("*") == 2 for word in LIKE.values())


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ({"passed": None}, "Nobody listened"),
        ({"passed": True}, "heard every sound"),
        ({"passed": True, "missed": ("t",)}, "did not hear 1 sound: the one in “<b>t</b>ea”. So few"),
        ({"passed": False, "missed": ("t", "t", "ð")}, "3 sounds: the one in “<b>t</b>ea”, twice; the one in “<b>th</b>is”"),
        ({"passed": False, "repeated": ("m",)}, "heard something twice: the one in “<b>m</b>an”. Another take"),
        ({"passed": True, "tries": 2}, "tried once more"),
    ],
)
def test_the_check_is_told_in_words(tiny, verdict, says):
    report = replace(tiny.synthesize("One.").report, sentences=(sentence(**verdict),), warnings=())
    assert says in heard(report)


def test_a_stream_is_told_by_what_was_heard_afterwards(tiny):
    report = replace(tiny.synthesize("One.").report, sentences=(sentence(),), warnings=("<b>loud</b>",))
    text = told(report, Check(("w", "ʌ", "n"), (), (), 0.0, 0.0))
    assert "Afterwards" in text and "all 3 of them" in text and "&lt;b&gt;loud" in text


def test_many_missing_sounds_are_not_all_named():
    assert sounds(("t", "d", "k", "p", "b", "m", "n")).endswith("; and 2 more")


def test_an_errors_sentence_does_not_tell_where_uploads_lie(tmp_path):
    assert plain(f"{tmp_path}/0a1b/me.wav is silent; record again", tmp_path) == "me.wav is silent; record again"


# ------------------------------------------------------------------------------------------------------------------ voices


def test_a_voice_is_kept_with_its_consent_listed_handed_out_removed_and_taken_in(tiny, recording, tmp_path):
    cabinet = Cabinet(tiny)
    assert "ann is kept" in cabinet.keep("ann", [str(recording)], "", "I agree. <Ann>", False)
    assert "I agree. &lt;Ann&gt;" in cabinet.table() and "me.wav" in cabinet.table()
    file = cabinet.hand_out("ann", tmp_path)
    assert "removed" in cabinet.remove("ann") and cabinet.names() == []
    assert "No voice" in cabinet.table()
    assert "ann is kept" in cabinet.take_in(str(file)) and cabinet.names() == ["ann"]
    with pytest.raises(SettingsError, match="tick"):
        cabinet.keep("ann", [str(recording)], "", "I agree.", False)


@pytest.mark.parametrize(
    ("name", "consent", "says"), [("ann", " ", "statement"), ("../ann", "yes", "cannot be called"), (None, "yes", "cannot be")]
)
def test_a_voice_without_consent_or_a_name_is_not_kept(tiny, recording, home, name, consent, says):
    with pytest.raises(SettingsError, match=says):
        Cabinet(tiny).keep(name, [str(recording)], "", consent, False)
    assert not (home / "voices").exists()


def test_a_closed_cabinet_keeps_and_removes_nothing(tiny, recording, tmp_path):
    Cabinet(tiny).keep("ann", [str(recording)], "", "I agree.", False)
    closed = Cabinet(tiny, open=False)
    acts = (
        lambda: closed.keep("bob", [str(recording)], "", "I agree.", False),
        lambda: closed.remove("ann"),
        lambda: closed.hand_out("ann", tmp_path),
        lambda: closed.take_in(str(recording)),
    )
    for act in acts:
        with pytest.raises(SettingsError, match="whoever runs this page"):
            act()
    assert closed.names() == ["ann"]


# ------------------------------------------------------------------------------------------------------------------- batch


def test_a_batch_speaks_what_was_uploaded_and_tells_of_what_failed(tiny, recording, manifest, tmp_path):
    path = manifest(("One.", ""), ("Two.", "clips/me.wav"), ("…", ""))
    template = Request("", settings={"steps": 1})
    jobs = read_upload(path, [str(recording)], template)
    assert [job.request.prompt for job in jobs] == [None, str(recording), None]
    *doing, last = speak_upload(tiny, str(tiny.folder), jobs, template, ".flac", tmp_path)
    with zipfile.ZipFile(last.file) as packed:
        assert sorted(packed.namelist()) == ["0.flac", "1.flac", "errors.jsonl", "results.jsonl"]
        assert "mynah-tts" in packed.read("0.flac")[:1000].decode("latin-1"), "each file says where it comes from"
    assert "2 spoken" in last.told and "1 failed" in last.told and "failed: " in last.told
    assert "3 of 3" in doing[-1].told


@pytest.mark.parametrize(
    "prompt", ["/etc/passwd", "../../other.wav", "file:///etc/passwd", "C:\\other.wav", "s3://bucket/other.wav"]
)
def test_a_manifest_cannot_name_files_of_this_machine(manifest, recording, prompt):
    with pytest.raises(PromptError, match=r"row 2, column prompt: '(passwd|other.wav)' was not uploaded .*: me.wav"):
        read_upload(manifest(("One.", prompt)), [str(recording)], Request(""))


def test_a_path_whose_name_was_uploaded_is_the_upload(manifest, recording, tmp_path):
    other = tmp_path / "me.wav"
    soundfile.write(other, speech(1.0), RATE)
    (job,) = read_upload(manifest(("One.", str(other))), [str(recording)], Request(""))
    assert job.request.prompt == str(recording)


def test_a_manifest_may_name_voices(manifest):
    (job,) = read_upload(manifest(("One.", "voice:ann")), [], Request("", "voice:bob"))
    assert job.request.prompt == "voice:ann"


def test_a_batch_needs_a_manifest_and_not_too_long_a_one(manifest):
    with pytest.raises(InputError, match="no manifest yet"):
        read_upload(None, [], Request(""))
    with pytest.raises(InputError, match="501 items"):
        read_upload(manifest(*[("One.", "")] * 501), [], Request(""))


# ---------------------------------------------------------------------------------------------------------------- the rest


def test_a_long_text_becomes_sound_subtitles_and_times(studio, tiny, tmp_path):
    from tts.serve.page.longtext import read_text, text_of

    file = tmp_path / "book.txt"
    file.write_text("One two.\n\nThree four.")
    request = studio.request(text_of("", str(file)), seed=2, steps=1)
    *doing, last = read_text(tiny, request, ".flac", tmp_path)
    srt, times = last.others
    assert soundfile.info(last.file).frames and json.loads(times.read_text())["sentences"][0]["words"][0]["word"] == "One"
    assert "-->" in srt.read_text() and "2 sentences" in last.told and "2 of 2 sentences" in doing[-1].told
    with pytest.raises(TextError, match="empty one of them"):
        text_of("Words.", str(file))
    with pytest.raises(TextError, match="mynah say --file"):
        text_of("word " * 100_000, None)


def test_without_gradio_a_sentence_says_what_to_install(monkeypatch):
    import sys

    from tts.serve.demo import gradio

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mynah-tts\[app\]'"):
        gradio()
