"""A batch: files depend on nothing but their rows, and a killed run goes on exactly."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial

import pytest
import soundfile
from conftest import RATE, speech
from fsspec.core import url_to_fs

from tts import Request
from tts.cli import main
from tts.errors import CheckpointError, MynahError, OutputError, SettingsError
from tts.serve.batch import in_order, run_batch
from tts.serve.jobs.manifests import Job, read_manifest
from tts.serve.jobs.stores import Bucket, Folder
from tts.serve.jobs.urls import read_url
from tts.serve.jobs.workers import Here, Outcome, Processes, Speaker, Work

FAST = Request("", settings={"steps": 1}, check=False)
TEXTS = ["One.", "Two and three.", "Four, five, six and seven.", "Eight."]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def manifest(tmp_path):
    return write(tmp_path / "m.jsonl", [{"id": f"item {i}", "text": text} for i, text in enumerate(TEXTS)])


@pytest.fixture
def run(tiny_folder):
    """A batch of the tiny system, in this process."""

    def go(manifest, out, engine=None, template=FAST, **options):
        return run_batch(manifest, out, system=str(tiny_folder), template=template, engine=engine or Here(), **options)

    return go


def sounds(out):
    """The sounds in a folder, or behind a URL, by their names."""
    if isinstance(out, str):
        system, path = url_to_fs(out)
        return {name.rpartition("/")[2]: system.cat_file(name) for name in system.glob(f"{path}/*.wav")}
    return {path.name: path.read_bytes() for path in out.glob("*.wav")}


def lines(place, *name):
    book = read_url("/".join([place, *name])) if isinstance(place, str) else place.joinpath(*name).read_bytes()
    return [json.loads(line) for line in book.decode().splitlines()]


class Refuses:
    """An engine that must not be asked."""

    def run(self, work, jobs):
        pytest.fail(f"{[job.id for job in jobs]} would be done again")
        yield


# ----------------------------------------------------------------------------------------------------------------- a run


def test_each_item_has_a_file_and_a_line_with_the_verdict(run, tmp_path, recording):
    rows = [
        {"id": "a", "text": "One.", "prompt": str(recording), "note": {"deep": [1]}},
        {"id": "b", "text": "", "note": "x"},
        {"id": "c", "text": "One.", "prompt": "missing.wav"},
        {"id": "d", "text": "One.", "backend": "flaw"},
        {"id": "e", "text": "One.", "seed": 3},
    ]
    told = []
    out = tmp_path / "out"
    tally = run(write(tmp_path / "m.jsonl", rows), out, template=Request("", settings={"steps": 1}), progress=told.append)
    assert (tally.items, tally.spoken, tally.failed, tally.before) == (5, 2, 3, 0) and told[-1] == tally and len(told) == 6
    by_id = {line["id"]: line for line in lines(out / "results.jsonl")}
    assert set(by_id) == {"a", "e"} and by_id["a"]["extra"] == {"note": {"deep": [1]}} and by_id["e"]["seed"] == 3
    line = by_id["a"]
    assert line["passed"] in (True, False) and line["tries"] >= 1 and {"missed", "repeated", "warnings"} <= line.keys()
    assert soundfile.info(out / line["file"]).duration == pytest.approx(line["seconds"], abs=1e-3)
    failed = {line["id"]: line for line in lines(out / "errors.jsonl")}
    assert failed["b"]["error"] == "TextError" and failed["b"]["row"] == 2 and failed["b"]["extra"] == {"note": "x"}
    assert "missing.wav does not exist" in failed["c"]["reason"] and "did you mean 'flow'?" in failed["d"]["reason"]


def test_a_file_says_what_the_request_alone_says(run, tiny, tmp_path, manifest):
    run(manifest, tmp_path / "out")
    for job in read_manifest(manifest, FAST):
        alone = tiny.speak(job.request).save(tmp_path / "alone.wav")
        assert sounds(tmp_path / "out")[f"{job.file_name}.wav"] == alone.read_bytes()


def test_a_prompt_is_heard_once_for_all_that_name_it(tiny, recording, monkeypatch):
    heard = []
    encode = tiny.encode_prompt
    monkeypatch.setattr(tiny, "encode_prompt", lambda *given: heard.append(given) or encode(*given))
    speaker = Speaker(Work("tiny"), tiny)
    jobs = [
        Job(f"{i}", i, Request("One.", prompt, settings={"steps": 1})) for i, prompt in enumerate([str(recording), "no"] * 3)
    ]
    outcomes = [speaker(job) for job in jobs]
    prompts = [given[0] for given in heard if isinstance(given[0], str)]
    assert prompts == [str(recording), "no"] and [outcome.sound is None for outcome in outcomes] == [False, True] * 3


def test_the_longest_come_first_and_voices_together():
    texts = [("a", "x" * 10, "v"), ("b", "x" * 100, "w"), ("c", "x" * 101, "v"), ("d", "x" * 102, "w")]
    assert [job.id for job in in_order([Job(i, 0, Request(text, voice)) for i, text, voice in texts])] == ["c", "b", "d", "a"]


def test_other_formats(run, manifest, tmp_path):
    run(manifest, tmp_path / "out", extension=".flac")
    assert len(list((tmp_path / "out").glob("*.flac"))) == len(TEXTS)
    with pytest.raises(SettingsError, match=r"one of \.wav"):
        run(manifest, tmp_path / "out", extension=".exe")


def test_what_no_worker_can_do_is_one_error_before_the_work(run, manifest, tmp_path):
    with pytest.raises(SettingsError, match="did you mean 'steps'"):
        run(manifest, tmp_path / "out", template=Request("", settings={"stepz": 1}))
    with pytest.raises(CheckpointError):
        run_batch(manifest, tmp_path / "out", system="base-xx")
    with pytest.raises(SettingsError, match="workers must be"):
        run(manifest, tmp_path / "out", workers=0)


# -------------------------------------------------------------------------------------------------------------- going on


def test_what_is_done_is_not_done_again(run, manifest, tmp_path):
    run(manifest, tmp_path)
    before = sounds(tmp_path), (tmp_path / "results.jsonl").read_bytes()
    tally = run(manifest, tmp_path, Refuses())
    assert (tally.before, tally.spoken) == (4, 0) and before == (sounds(tmp_path), (tmp_path / "results.jsonl").read_bytes())


def test_only_what_was_changed_is_done_again(run, manifest, tmp_path):
    run(manifest, tmp_path)
    before = sounds(tmp_path)
    rows = lines(manifest)
    rows[1]["text"] = "Now something else."
    (victim, *_) = [name for name in before if name.startswith("item_3")]
    (tmp_path / victim).write_bytes(before[victim][:-10])
    tally = run(write(manifest, rows), tmp_path)
    after = sounds(tmp_path)
    assert (tally.before, tally.spoken) == (2, 2) and after[victim] == before[victim]
    assert [name for name in sorted(before) if before[name] != after[name]] == [f"{read_manifest(manifest)[1].file_name}.wav"]
    assert len(lines(tmp_path / "results.jsonl")) == 4


def test_a_recording_that_was_replaced_is_heard_again(run, tmp_path):
    soundfile.write(tmp_path / "me.wav", speech(2.0), RATE)
    rows = [{"id": "a", "text": "One.", "prompt": "me.wav"}, {"id": "b", "text": "One."}]
    manifest = write(tmp_path / "m.jsonl", rows)
    run(manifest, tmp_path / "out")
    soundfile.write(tmp_path / "me.wav", speech(2.0, hz=200.0), RATE)
    assert run(manifest, tmp_path / "out").before == 1


def test_what_failed_is_tried_again_and_only_the_last_try_is_told(run, tmp_path):
    manifest = write(tmp_path / "m.jsonl", [{"id": "a", "text": "One.", "prompt": "me.wav"}])
    assert run(manifest, tmp_path / "out").failed == 1 and run(manifest, tmp_path / "out").failed == 1
    assert len(lines(tmp_path / "out/errors.jsonl")) == 1
    soundfile.write(tmp_path / "me.wav", speech(2.0), RATE)
    assert run(manifest, tmp_path / "out").spoken == 1 and not (tmp_path / "out/errors.jsonl").exists()


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the house catches it."""


@pytest.mark.parametrize("kind", [Folder, Bucket])
@pytest.mark.parametrize("where", ["before the line", "half of the line", "before the sound", "after the sound"])
def test_a_run_that_ends_at_any_step_of_the_books_goes_on_exactly(run, manifest, tmp_path, monkeypatch, where, kind):
    run(manifest, tmp_path / "whole")
    out, steps = tmp_path / "out", iter(range(100))
    place = out if kind is Folder else f"memory://{tmp_path.name}"
    add, write = kind.add, kind.write

    def line(store, book, told):
        if next(steps) == 2 and where != "before the sound" and where != "after the sound":
            if where == "half of the line" and kind is Folder:
                (out / book).write_bytes((out / book).read_bytes() + json.dumps(told)[:50].encode())
            elif where == "half of the line":  # a store that does not keep its promise
                write(store, f"{book}.lines/00000002", json.dumps(told)[:50].encode())
            raise Killed
        add(store, book, told)

    def sound(store, name, data):
        if name.endswith(".wav") and len(sounds(place)) == 2 and where == "before the sound":
            if kind is Folder:
                (out / f".{name}.1-1.part").write_bytes(data[:100])
            raise Killed
        write(store, name, data)
        if name.endswith(".wav") and len(sounds(place)) == 3 and where == "after the sound":
            raise Killed

    monkeypatch.setattr(kind, "add", line)
    monkeypatch.setattr(kind, "write", sound)
    monkeypatch.setattr(Bucket, "_gather", lambda store, book: None)
    with pytest.raises(Killed):
        run(manifest, place)
    monkeypatch.undo()
    finished = set(sounds(place))
    again = []

    class Watched(Here):
        def run(self, work, jobs):
            again.extend(f"{job.file_name}.wav" for job in jobs)
            return super().run(work, jobs)

    run(manifest, place, Watched())
    assert not finished & set(again), "what was finished is done again"
    assert sounds(place) == sounds(tmp_path / "whole") and list(out.glob(".*.part")) == []
    assert sorted(line["id"] for line in lines(place, "results.jsonl")) == [f"item {i}" for i in range(4)]


def test_two_batches_do_not_write_to_one_folder(run, manifest, tmp_path):
    pytest.importorskip("fcntl")

    class Second(Here):
        def run(self, work, jobs):
            with pytest.raises(OutputError, match="another batch is writing"):
                run(manifest, tmp_path)
            return super().run(work, jobs)

    assert run(manifest, tmp_path, Second()).spoken == 4


# --------------------------------------------------------------------------------------------------------------- workers


@dataclass(frozen=True)
class Fake(Work):
    """Work that needs no system: a text is what it says, and "die" ends the worker."""

    def open(self, number):
        if self.system == "none":
            raise CheckpointError("there is no system")
        return answer


def answer(job):
    if job.request.text == "die":
        time.sleep(1.0)  # by now the other worker waits, with nothing to do; its job once came back to nobody
        os._exit(3)
    if job.request.text == "fault":
        raise KeyError("a fault of ours")
    return Outcome(job.id, {"id": job.id, "in": os.environ["OMP_NUM_THREADS"]}, job.request.text.encode())


@pytest.mark.slow
@pytest.mark.parametrize(("together", "text", "code"), [(None, "die", 3), (3, "die", 3), (3, "fault", 1)])
def test_a_worker_that_dies_costs_its_item_and_nothing_else(together, text, code):
    jobs = [Job(f"{i}", i, Request(text if i == 1 else f"text {i}")) for i in range(5)]
    outcomes = {outcome.id: outcome for outcome in Processes(2).run(Fake("fake", threads=3, together=together), jobs)}
    assert {i: outcome.sound for i, outcome in outcomes.items()} == {
        f"{i}": None if i == 1 else f"text {i}".encode() for i in range(5)
    }
    assert f"2 workers ended while they spoke it (exit code {code})" in outcomes["1"].told["reason"]
    assert outcomes["0"].told["in"] == "3" and os.environ.get("OMP_NUM_THREADS") != "3", "each has its share of threads"


def test_what_a_worker_cannot_open_is_raised_here():
    with pytest.raises(MynahError, match="there is no system"):
        list(Processes(1).run(Fake("none"), [Job("a", 1, Request("x"))]))


def test_workers_say_what_one_process_says_whatever_the_order(run, manifest, tmp_path):
    run(manifest, tmp_path / "here")
    write(tmp_path / "back.jsonl", lines(manifest)[::-1])
    run(tmp_path / "back.jsonl", tmp_path / "there", Processes(2))
    assert sounds(tmp_path / "here") == sounds(tmp_path / "there") and len(sounds(tmp_path / "here")) == 4


def test_a_worker_that_speaks_side_by_side_says_the_same(run, manifest, tmp_path):
    run(manifest, tmp_path / "here")
    run(manifest, tmp_path / "beside", Processes(1), together=3)
    assert sounds(tmp_path / "here") == sounds(tmp_path / "beside") and len(sounds(tmp_path / "here")) == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_batch_that_is_killed_again_and_again_ends_as_an_undisturbed_one(run, tiny_folder, tmp_path):
    rows = [{"id": f"{i}", "text": "One and two and three. " * (4 + i % 3)} for i in range(24)]
    manifest, out = write(tmp_path / "m.jsonl", rows), tmp_path / "out"
    run(manifest, tmp_path / "whole")
    words = ["batch", manifest, "--out", out, "--workers", "2", "--system", tiny_folder, "--set", "steps=1", "--no-check"]
    program = [sys.executable, "-m", "tts.cli", *map(str, words)]
    dice = random.Random(0)
    for how in ("interrupt", "kill", "kill all"):
        # whoever runs these tests in the background may have told their children to ignore a Ctrl-C
        heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heeds)
        had = len(sounds(out))
        while len(sounds(out)) < had + 1 + dice.randrange(2) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.05)
        finished = {path: path.stat().st_mtime_ns for path in out.glob("*.wav")}
        if how == "kill":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        _, complained = process.communicate()
        if how == "interrupt":
            assert process.returncode == 130 and complained.startswith("mynah: stopped") and complained.count("\n") == 1
    assert len(sounds(out)) < 24, "there is something left to go on with"
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    subprocess.run(program, check=True, capture_output=True)
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items()), "what was finished is done again"
    assert sounds(out) == sounds(tmp_path / "whole") and list(out.glob(".*.part")) == []
    assert sorted(int(line["id"]) for line in lines(out / "results.jsonl")) == list(range(24))


def test_the_command_tells_what_failed_and_exits_with_1(tiny_folder, tmp_path, capsys):
    manifest = write(tmp_path / "m.jsonl", [{"id": "a", "text": "One.", "note": 1}, {"id": "b", "text": ""}])
    words = ["batch", manifest, "--out", tmp_path / "out", "--workers", "1", "--system", tiny_folder, "--set", "steps=1"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    told, complained = capsys.readouterr()
    assert stopped.value.code == 1 and "1 spoken" in told and "1 failed, see" in told and "travel along: note" in complained
    with pytest.raises(SystemExit) as stopped:
        main(["batch", str(tmp_path / "none.csv"), "--out", str(tmp_path / "other")])
    told, complained = capsys.readouterr()
    assert stopped.value.code == 2 and told == "" and complained.count("\n") == 1 and not (tmp_path / "other").exists()
