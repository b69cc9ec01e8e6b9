"""Batches behind URLs: manifests, recordings and folders, by the same rules as on this machine."""

import io
import json

import fsspec
import pytest
import soundfile
from conftest import RATE, speech
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from tts import Request
from tts.errors import InputError, MissingPackageError, OutputError, PromptError
from tts.serve.batch import run_batch
from tts.serve.jobs.manifests import read_manifest
from tts.serve.jobs.stores import Bucket, Folder, store_at
from tts.serve.jobs.urls import beside, fetched, is_url, local
from tts.serve.jobs.workers import Here

FAST = Request("", settings={"steps": 1}, check=False)


@pytest.fixture
def bucket():
    """The URL of an empty store in memory."""
    MemoryFileSystem.store.clear()
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


def put(url, data):
    with fsspec.open(url, "wb") as file:
        file.write(data)
    return url


def sound(hz=140.0):
    file = io.BytesIO()
    soundfile.write(file, speech(2.0, hz=hz), RATE, format="WAV")
    return file.getvalue()


def everything(url):
    system, path = url_to_fs(url)
    return {name.removeprefix(path).lstrip("/"): system.cat_file(name) for name in system.find(path)}


@pytest.mark.parametrize(
    ("place", "is_one"), [("s3://b/x", True), ("simplecache::s3://b", True), ("a/b", False), ("C:\\x", False)]
)
def test_what_is_a_url(place, is_one):
    assert is_url(place) == is_one and not is_url(None)


@pytest.mark.parametrize(
    ("file", "name", "place"),
    [
        ("s3://b/lists/m.csv", "me.wav", "s3://b/lists/me.wav"),
        ("s3://b/lists/m.csv", "../voices/me.wav", "s3://b/voices/me.wav"),
        ("s3://b/lists/m.csv", "/data/me.wav", "/data/me.wav"),
        ("s3://b/lists/m.csv", "gs://c/me.wav", "gs://c/me.wav"),
        ("/data/m.csv", "gs://c/me.wav", "gs://c/me.wav"),
        ("/data/m.csv", "wavs/me.wav", "/data/wavs/me.wav"),
    ],
)
def test_recordings_lie_beside_their_manifest(file, name, place):
    assert beside(file, name) == place


def test_a_batch_between_urls_is_the_batch_between_folders(bucket, tiny_folder, tmp_path):
    """Manifest, recording and sounds in a store; then nothing is done again, until the recording is another one."""
    rows = [{"id": "a", "text": "One.", "prompt": "wavs/me.wav"}, {"id": "b b", "text": "Two."}, {"id": "c", "text": ""}]
    table = "\r\n".join(json.dumps(row) for row in rows).encode()
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs/me.wav").write_bytes(sound())
    (tmp_path / "m.jsonl").write_bytes(table)
    manifest = put(f"{bucket}/in/m.jsonl", table)
    put(f"{bucket}/in/wavs/me.wav", sound())

    def run(manifest, out):
        return run_batch(manifest, out, system=str(tiny_folder), template=FAST, engine=Here())

    here, there = run(tmp_path / "m.jsonl", tmp_path / "out"), run(manifest, f"{bucket}/out/")
    assert here == there and (there.spoken, there.failed) == (2, 1)
    local_files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != ".lock"}
    found = everything(f"{bucket}/out")
    assert found.keys() == local_files.keys(), "books are gathered, and nothing else is left"
    assert all(found[name] == data for name, data in local_files.items() if name.endswith(".wav"))
    assert run(manifest, f"{bucket}/out").before == 2 and everything(f"{bucket}/out").keys() == found.keys()
    put(f"{bucket}/in/wavs/me.wav", sound(200.0))
    again = run(manifest, f"{bucket}/out")
    assert (again.before, again.spoken) == (1, 1) and everything(f"{bucket}/out")["a.wav"] != found["a.wav"]
    assert [job.id for job in read_manifest(manifest)] == ["a", "b b", "c"]


def test_lines_of_a_killed_run_are_gathered_once(bucket):
    store = Bucket(f"{bucket}/out")
    for number in (1, 2):
        store.add("results.jsonl", {"id": number})
    assert list(everything(f"{bucket}/out")) == [f"results.jsonl.lines/{number:08}" for number in (0, 1)]
    later = Bucket(f"{bucket}/out")
    with later.only_writer():
        assert later.read("results.jsonl") == b'{"id": 1}\n{"id": 2}\n'
        later.add("results.jsonl", {"id": 3})
        later.add("errors.jsonl", {"id": 4})
        later.remove("errors.jsonl")
    assert everything(f"{bucket}/out") == {"results.jsonl": b'{"id": 1}\n{"id": 2}\n{"id": 3}\n'}


def test_a_file_url_is_a_folder_of_this_machine(tmp_path):
    url = f"file://{tmp_path}/out"
    store = store_at(url)
    assert isinstance(store, Folder) and store.path == tmp_path / "out" == local(url)
    with store.only_writer(), pytest.raises(OutputError, match="another batch"), store_at(tmp_path / "out").only_writer():
        pytest.fail("two at once")


def test_a_place_that_cannot_be_used_is_a_sentence(bucket, monkeypatch):
    with pytest.raises(InputError, match="nowhere://x is no place that fsspec knows"):
        store_at("nowhere://x")
    with pytest.raises(InputError, match=r"memory://bucket/m\.csv does not exist"):
        read_manifest(f"{bucket}/m.csv")
    with pytest.raises(PromptError, match=r"me\.wav does not exist; give the URL"):
        fetched([f"{bucket}/me.wav"])

    def refuses(*given, **also):
        raise PermissionError("no key")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuses)
    with pytest.raises(OutputError, match=r"memory://bucket/a\.wav cannot be written \(no key\)"):
        store_at(bucket).write("a.wav", b"")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (_ for _ in ()).throw(ImportError("Install s3fs")))
    with pytest.raises(MissingPackageError, match="Install s3fs"):
        store_at("s3://b")
