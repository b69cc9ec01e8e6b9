"""Voices over HTTP: uploaded, kept, lent and deleted; and no upload, however made, does harm or leaves a file."""

import io

import numpy as np
import pytest
import soundfile
from live import ask, client_of, httpx, openai, recorded, samples_of, serving, until, upload

from tts.serve.http import ServerConfig
from tts.serve.server.guard import Limits


@pytest.fixture(scope="module")
def url(tiny):
    with serving(tiny) as address:
        yield address


@pytest.fixture
def client(url):
    return client_of(url)


def test_an_uploaded_voice_says_what_its_recording_says(tiny, client, url, home):
    answer = upload(url, recorded(), text="One and two.", consent="I agree.")
    told = answer.json()
    assert answer.status_code == 200 and told["kind"] == "temporary" and told["consent"] is True and told["expires"]
    given = samples_of(ask(client, "One.", voice=told["id"]).content)
    wanted = np.concatenate(list(tiny.stream("One.", io.BytesIO(recorded()), prompt_text="One and two.")))
    assert np.abs(given - wanted).max() < 1e-4
    assert list(home.iterdir()) == [], "a temporary voice is in memory alone"
    assert told["id"] not in [voice["id"] for voice in httpx.get(f"{url}/v1/voices").json()["data"]]
    assert httpx.get(f"{url}/v1/voices/{told['id']}").json()["seconds"] == told["seconds"]
    assert httpx.delete(f"{url}/v1/voices/{told['id']}").json()["deleted"]
    with pytest.raises(openai.NotFoundError):
        ask(client, voice=told["id"])


def test_openais_client_keeps_a_voice(tiny, client, url, home):
    voice = client.audio.voices.create(name="ann", consent="I agree. Ann", audio_sample=("a.wav", recorded()))
    assert voice.id == "ann" and [path.name for path in (home / "voices").iterdir()] == ["ann.safetensors"]
    listed = {voice["id"]: voice for voice in httpx.get(f"{url}/v1/voices").json()["data"]}
    assert list(listed) == ["default", "tiny", "ann"] and listed["ann"]["kind"] == "kept" and listed["ann"]["consent"]
    given = samples_of(ask(client, voice="ann").content)
    wanted = np.concatenate(list(tiny.stream("One.", "voice:ann")))
    assert np.abs(given - wanted).max() < 1e-4
    assert ask(client, voice={"id": "ann"}).content
    for name, status in (("ann", 409), ("tiny", 409), ("default", 409), ("../up", 400), ("a/b", 400), ("é", 400)):
        assert upload(url, recorded(), name=name).status_code == status, name
    assert httpx.delete(f"{url}/v1/voices/ann").status_code == 200 and list((home / "voices").iterdir()) == []
    assert httpx.delete(f"{url}/v1/voices/ann").status_code == 404
    assert httpx.delete(f"{url}/v1/voices/tiny").status_code == 403
    assert httpx.delete(f"{url}/v1/voices/..%2f..%2fetc").status_code == 404


def test_a_voice_that_is_made_anew_is_heard_anew(tiny, client, url, home):
    said = []
    for hz in (100.0, 240.0):
        assert upload(url, recorded(hz=hz), name="ann").status_code == 200
        said.append(samples_of(ask(client, voice="ann", extra={"backend": "flow"}).content))
        httpx.delete(f"{url}/v1/voices/ann")
    assert said[0].shape != said[1].shape or not np.array_equal(*said)


def test_a_voice_of_another_system_is_refused_without_a_path(client, home):
    (home / "voices").mkdir()
    (home / "voices" / "odd.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(openai.BadRequestError, match="upload it again") as refused:
        ask(client, voice="odd")
    assert str(home) not in str(refused.value)


def test_a_temporary_voice_is_forgotten(tiny):
    with serving(tiny, ServerConfig(1, limits=Limits(keeps=1.0, temporary=2))) as url:
        names = [upload(url, recorded(1.0)).json()["id"] for _ in range(3)]
        assert httpx.get(f"{url}/v1/voices/{names[0]}").status_code == 404, "only two are lent"
        until(lambda: httpx.get(f"{url}/v1/voices/{names[2]}").status_code == 404)


def squeezed(seconds):
    """A flac of silence: few bytes, much sound."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((round(seconds * 48_000), 2), np.int16), 48_000, format="FLAC")
    return buffer.getvalue()


def lying(frames=2**31):
    """A wav whose header promises what does not come."""
    data = bytearray(recorded())
    data[40:44] = (2 * frames & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 415),
        (b"hello", 415),
        (b"PK\x03\x04" + bytes(1000), 415),
        (b"<svg>", 415),
        (b"RIFF", 400),
        (b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff" + bytes(100), 400),
        (b"fLaC" + bytes(100), 400),
        (b"OggS" + bytes(100), 400),
        (b"ID3" + b"\xff" * 1000, 400),
        (recorded(6.0), 413),
        (squeezed(600), 413),
        (recorded()[:1000], 400),
        (recorded(0.1), 400),
        (bytes(bytearray(recorded())[:44]) + bytes(64_000), 400),
        (b"\0" * 2**21, 413),
    ],
)
def test_a_recording_that_is_none_is_refused(url, home, data, status):
    for fields in ({}, {"name": "ann"}):
        answer = upload(url, data, **fields)
        assert answer.status_code == status and answer.json()["error"]["message"], answer.text
        assert str(home) not in answer.text
    assert list(home.iterdir()) == []


def test_a_header_that_lies_is_no_trouble(url, home):
    assert upload(url, lying()).status_code in (200, 400) and list(home.iterdir()) == []
