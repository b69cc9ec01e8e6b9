"""Whatever is sent to it, the server answers as its own description says, and nothing lies outside its folder afterwards.

MYNAH_FUZZ=500 sends so many requests to each address, and MYNAH_UPLOADS=500 so many broken recordings; a few, if not set.
"""

import contextlib
import io
import os
import random
import tempfile
from collections import Counter
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given
from hypothesis import settings as of_hypothesis
from hypothesis.errors import Unsatisfiable
from live import SMALL, httpx, openai, recorded, serving, upload

from tts.serve.http import ServerConfig

schemathesis = pytest.importorskip("schemathesis")
assert openai

EXAMPLES = int(os.environ.get("MYNAH_FUZZ", "5"))
UPLOADS = int(os.environ.get("MYNAH_UPLOADS", "40"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of data of this file's server, and of its voices."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def home(data, monkeypatch):
    """For all tests of this file the same, as the server lives as long."""
    monkeypatch.setenv("MYNAH_HOME", str(data))
    return data


@pytest.fixture(scope="module")
def url(tiny, data):
    for (
        language
    ) in tiny.system.languages:  # phonemizer keeps a copy of espeak-ng among temporary files as long as a process lives
        tiny.synthesize("One.", language=language, settings={"steps": 1})
    with pytest.MonkeyPatch.context() as patch, serving(tiny, ServerConfig(limits=SMALL)) as address:
        patch.setenv("MYNAH_HOME", str(data))
        yield address


@pytest.fixture
def nothing_else(data, tmp_path, monkeypatch):
    """Nothing is written but voices: not where the process works, not beside the data, not among temporary files."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    around = (tmp_path / "temporary", data.parent, data, Path.cwd())
    before = [set(folder.iterdir()) for folder in around]
    yield
    for folder, known in zip(around, before, strict=True):
        new = set(folder.iterdir()) - known - {tmp_path}
        assert new <= {data / "voices"}, new
    for path in (data / "voices").glob("*"):
        assert path.suffix == ".safetensors", path


def operations(url):
    return [found.ok() for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_answers_are_as_described(url, mode):
    """What fits the description and what does not; the first may still be refused, for instance for a voice there is not."""
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    excluded = [CHECKS.get_one("positive_data_acceptance")]
    sent = []
    for operation in operations(url):
        spoken = operation.path == "/v1/audio/speech" and mode is schemathesis.GenerationMode.POSITIVE

        def try_it(case):
            if spoken and isinstance(case.body, dict):  # noqa: B023  far enough to be spoken
                case.body |= {"model": "tiny", "voice": "tiny", "input": f"One. {case.body.get('input', '')}"[:30]}
                case.body.pop("backend", None)
            sent.append(case.call_and_validate(excluded_checks=excluded, timeout=60).status_code)

        quick = of_hypothesis(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        with contextlib.suppress(Unsatisfiable, SkipTest):  # there is nothing that does not fit
            quick(given(operation.as_strategy(generation_mode=mode))(try_it))()
    print(len(sent), Counter(sent))
    assert httpx.get(f"{url}/health", timeout=5).json()["status"] == "ok"


def broken(number):
    """A recording that something has happened to, and its name: another for each number."""
    chance = random.Random(number)
    kind = chance.choice(["WAV", "FLAC", "OGG", "MP3", "AIFF", "NOISE"])
    if kind == "NOISE":
        heads = [b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\x02", b"ID3\x03\0", b"\xff\xfb\x90", b"", b"PK"]
        return chance.choice(heads) + chance.randbytes(chance.choice([0, 1, 40, 5_000, 200_000])), kind
    data = bytearray(recorded(chance.choice([0.1, 0.2, 1.0, 2.0]), kind))
    how = chance.choice(["cut", "flip", "head", "zeros", "twice", "long", "stretch"])
    if how == "cut":
        del data[chance.randrange(len(data) + 1) :]
    elif how == "flip":
        for _ in range(chance.choice([1, 20, 2_000])):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif how == "head":  # what the header says of rate, channels and length
        for _ in range(chance.choice([1, 3, 10])):
            place = chance.randrange(min(64, len(data)))
            data[place : place + 4] = chance.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", chance.randbytes(4)]
            )
    elif how == "zeros":
        start = chance.randrange(len(data))
        data[start : start + 3_000] = bytes(min(3_000, len(data) - start))
    elif how == "twice":
        data = data[: chance.randrange(len(data))] + data
    elif how == "long":  # a header of a hundred times its size
        data = data[:12] + b"LIST" + (100_000).to_bytes(4, "little") + bytes(100_000) + data[12:]
    else:  # much sound in few bytes
        buffer = io.BytesIO()
        rate, channels = chance.choice([(8_000, 1), (48_000, 2), (192_000, 8)])
        soundfile.write(buffer, np.zeros((rate * chance.choice([1, 20]), channels), np.int16), rate, format="FLAC")
        data = bytearray(buffer.getvalue())
    return bytes(data), f"{kind} {how}"


@pytest.mark.usefixtures("nothing_else")
def test_no_broken_recording_does_harm(url, data):
    statuses: Counter[int] = Counter()
    for number in range(UPLOADS):
        sound, how = broken(number)
        answer = upload(url, sound, **({} if number % 2 else {"name": f"voice-{number}"}))
        assert answer.status_code in (200, 400, 413, 415, 422), (number, how, answer.text)
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            httpx.delete(f"{url}/v1/voices/{answer.json()['id']}")
        else:
            assert answer.json()["error"]["message"] and str(data) not in answer.text
    assert httpx.get(f"{url}/health", timeout=5).json()["status"] == "ok"
    assert list((data / "voices").glob("*")) == []
    print(statuses)


NAMES = [
    "../../x.wav",
    "/etc/passwd",
    "C:\\x.wav",
    "a" * 5_000,
    "\0",
    "x\r\nContent-Type: text/html",
    "",
    ".",
    "..",
    "%2e%2e%2f",
]


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_uploaded_file_leads_nowhere(url, data, name):
    answer = httpx.post(f"{url}/v1/voices", files={"audio_sample": (name, recorded(1.0))}, data={"name": "ann"}, timeout=60)
    assert answer.status_code in (200, 400, 422)
    if answer.status_code == 200:
        assert [path.name for path in (data / "voices").iterdir()] == ["ann.safetensors"]
        httpx.delete(f"{url}/v1/voices/ann")


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("head", [b"GET / HTTP/9.9\r\n\r\n", b"\0" * 1000, b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_no_trouble(url, head):
    import socket

    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(head)
        assert line.recv(1000)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 403", b"")
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.usefixtures("nothing_else")
def test_headers_may_not_be_huge_nor_parts_many(url):
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, AssertionError)):
        assert httpx.get(f"{url}/health", headers={"x": "y" * 200_000}).status_code == 200
    many = httpx.post(f"{url}/v1/voices", files=[("audio_sample", ("x", b"x")) for _ in range(1_500)], timeout=60)
    assert many.status_code in (400, 422)
    assert httpx.post(f"{url}/v1/voices", content=b"x", headers={"content-type": "multipart/form-data"}).status_code in (
        400,
        422,
    )
    assert httpx.get(f"{url}/health").status_code == 200
