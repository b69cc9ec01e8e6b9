"""Speech over HTTP: OpenAI's own client gets its own request's audio, and whoever asks wrongly a sentence that says why."""

import base64
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import RATE
from live import SMALL, ask, client_of, httpx, openai, samples_of, serving, streamed

from tts.audio import resample
from tts.frames import Request
from tts.narration import narrate
from tts.serve.http import ServerConfig
from tts.serve.server.guard import digest
from tts.serve.server.sounds import sixteen_bits

KEY = "a key of sixteen signs or more"


@pytest.fixture(scope="module")
def url(tiny):
    with serving(tiny) as address:
        yield address


@pytest.fixture
def client(url):
    return client_of(url)


# ---------------------------------------------------------------------------------------------------------------- speech


def test_openais_client_gets_what_the_system_streams(tiny, client):
    given = samples_of(ask(client, "One and two.", extra={"seed": 7}).content)
    assert np.array_equal(given, np.frombuffer(sixteen_bits(streamed(tiny, "One and two.", seed=7)), "<i2") / np.float32(32768))


@pytest.mark.parametrize("kind", ["wav", "flac", "opus", "mp3", "pcm"])
@pytest.mark.parametrize("stream", [True, False])
def test_each_format_holds_the_speech(tiny, client, kind, stream):
    answer = ask(client, "One.", response_format=kind, extra={"stream": stream, "backend": "ar"})
    wanted = streamed(tiny, "One.") if stream else tiny.synthesize("One.", "voice:tiny", backend="ar").samples
    if kind == "pcm":
        given = np.frombuffer(answer.content, "<i2") / 32768
        wanted = resample(torch.from_numpy(wanted), RATE, 24_000).numpy()
        assert answer.response.headers["content-type"] == "audio/pcm;rate=24000;channels=1"
    else:
        given = samples_of(answer.content)
    if kind in ("wav", "flac", "pcm"):
        assert given.shape == wanted.shape and np.abs(given - wanted).max() < 1e-4
    else:
        assert 0 <= len(given) - len(wanted) < 0.2 * RATE  # what an mp3 begins and ends with


def test_speech_comes_while_it_is_made(client, tiny):
    with client.audio.speech.with_streaming_response.create(
        model="tiny", voice="tiny", input="One, two, three, four, five and six.", response_format="pcm"
    ) as answer:
        pieces = [piece for piece in answer.iter_bytes() if piece]
    assert "content-length" not in answer.headers and len(pieces) > 1


def test_events_carry_the_sound_and_then_the_report(tiny, client):
    raw = ask(client, stream_format="sse").content.decode()
    events = [json.loads(line.removeprefix("data: ")) for line in raw.splitlines() if line.startswith("data: ")]
    sound = b"".join(base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
    assert np.array_equal(samples_of(sound), samples_of(ask(client).content))
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["report"]["passed"] in (True, False)


def test_the_check_reports_after_the_fact(tiny, client, url):
    answer = ask(client, "One. Two.", extra={"seed": 3})
    assert answer.response.headers["x-mynah-report"].endswith(answer.response.headers["x-request-id"])
    report = httpx.get(url + answer.response.headers["x-mynah-report"]).json()
    stream = tiny.stream("One. Two.", "voice:tiny", seed=3, check=True)
    list(stream)
    assert report["passed"] == all(sentence.passed for sentence in stream.report.sentences)
    assert report["missed"] == list(stream.report.missed) and report["seed"] == 3 and report["backend"] == "ar"
    assert httpx.get(f"{url}/v1/audio/reports/none").status_code == 404


def test_at_once_it_is_checked_and_sent_whole(tiny, client):
    answer = ask(client, "One.", extra={"stream": False, "settings": {"steps": 1}})
    audio = tiny.synthesize("One.", "voice:tiny", settings={"steps": 1})
    assert answer.content == audio.encode(".wav")
    passed = all(sentence.passed for sentence in audio.report.sentences)
    assert answer.response.headers["x-mynah-passed"] == json.dumps(passed)
    assert answer.response.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("stream", [True, False])
def test_a_long_text_is_narrated(tiny, client, url, stream, monkeypatch):
    text = "One and two. " * 3
    monkeypatch.setattr("tts.serve.server.speech.LONG", 20)
    options = {"backend": "flow", "seed": 2, "settings": {"steps": 1}}
    answer = ask(client, text, extra={**options, "stream": stream})
    passages = list(narrate(tiny, Request(text, "voice:tiny", **options)))
    wanted = np.concatenate([passage.samples for passage in passages])
    assert np.abs(samples_of(answer.content) - wanted).max() < 1e-4
    report = httpx.get(url + answer.response.headers["x-mynah-report"]).json()
    assert len(report["sentences"]) == 3 and report["seconds"] == pytest.approx(len(wanted) / RATE)


def test_a_model_may_name_the_backend(tiny, client, url):
    names = [model.id for model in client.models.list()]
    assert names == ["tiny", *(f"tiny/{name}" for name in tiny.parts.backends)] and client.models.retrieve("tiny/ar").id
    answer = client.audio.speech.create(model="tiny/flow", voice="tiny", input="One.", response_format="wav")
    assert answer.response.headers["x-mynah-backend"] == "flow"
    assert client.audio.speech.create(model="tts-1", voice="default", input="One.").response.headers["x-mynah-backend"] == "ar"


def test_side_by_side_each_gets_what_it_gets_alone(tiny, monkeypatch):
    beside = tiny.together()
    seats, seat = [], beside.company.seat
    monkeypatch.setattr(beside.company, "seat", lambda: seats.append("taken") or seat())
    asked = [("One.", 3), ("Two and three.", 4), ("Four five.", 5), ("Six. Seven.", 6)]
    with serving(beside, ServerConfig(workers=4, limits=SMALL)) as address, ThreadPoolExecutor(4) as clients:
        extra = [{"stream": False, "backend": "flow", "seed": seed} for _, seed in asked]
        answers = clients.map(lambda one: ask(client_of(address), one[0][0], extra=one[1]), zip(asked, extra, strict=True))
        for (text, seed), answer in zip(asked, answers, strict=True):
            alone = tiny.synthesize(text, "voice:tiny", seed=seed)
            assert answer.content == alone.encode(".wav")
    assert len(seats) == 4, "whoever speaks has a seat, for which the others wait"


def test_thirty_two_clients_at_once_each_get_their_own_audio(tiny, client):
    jobs = [(f"{i % 7}.", i, "ar" if i % 3 else "flow") for i in range(40)]

    def one(job):
        text, seed, backend = job
        return samples_of(ask(client, text, extra={"seed": seed, "backend": backend}).content)

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(one, jobs))
    for (text, seed, backend), given in zip(jobs, answers, strict=True):
        wanted = streamed(tiny, text, seed=seed, backend=backend)
        assert given.shape == wanted.shape and np.abs(given - wanted).max() < 1e-4, (text, seed, backend)


# -------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "gpt-9"}, 404, "there is no model 'gpt-9'; there are tiny"),
        ({"voice": "ghost"}, 404, "no voice 'ghost'"),
        ({"voice": "/etc/passwd"}, 404, "no voice"),
        ({"voice": "../tiny"}, 404, "no voice"),
        ({"voice": "voice:tiny"}, 404, "no voice"),
        ({"input": ""}, 422, "input"),
        ({"input": "…"}, 400, "nothing to say"),
        ({"input": "One. " * 500}, 422, "2000"),
        ({"input": "[pause:x] One."}, 400, "pause"),
        ({"input": "\ud800"}, 422, "input"),
        ({"speed": 9.0}, 422, "speed"),
        ({"speed": "fast"}, 422, "speed"),
        ({"seed": -1}, 422, "seed"),
        ({"seed": 2**63}, 422, "seed"),
        ({"response_format": "aac"}, 422, "response_format"),
        ({"backend": "flaw"}, 400, "did you mean 'flow'"),
        ({"model": "tiny/flow", "backend": "ar"}, 400, "give one"),
        ({"language": "xx"}, 400, "no language 'xx'"),
        ({"backend": "flow", "settings": {"stebs": 3}}, 400, "did you mean 'steps'"),
        ({"backend": "flow", "settings": {"steps": 10**9}}, 400, "steps"),
        ({"instructions": "Whisper."}, 422, "instructions"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_what_cannot_be_said_is_answered_in_openais_shape(url, change, status, says):
    body = json.dumps({"model": "tiny", "voice": "tiny", "input": "One.", **change})
    answer = httpx.post(f"{url}/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and says in error["message"], error
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 5_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"model=tiny", "application/x-www-form-urlencoded", 415),
        (b'{"input": "One."}', "text/plain", 415),
        (b"x" * 10**6, "application/json", 413),
    ],
)
def test_a_body_that_is_none_is_refused(url, content, kind, status):
    answer = httpx.post(f"{url}/v1/audio/speech", content=content, headers={"content-type": kind})
    assert answer.status_code == status and answer.json()["error"]["message"], answer.text


def test_a_body_without_a_length_is_counted(url):
    def endless():
        for _ in range(10_000):
            yield b" " * 10_000

    with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
        answer = httpx.post(f"{url}/v1/audio/speech", content=endless(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
    assert httpx.get(f"{url}/health").json()["status"] == "ok"


def test_addresses_that_are_none_are_answered_alike(url):
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["code"] == "not_found"
    wrong = httpx.get(f"{url}/v1/audio/speech")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and wrong.json()["error"]


def test_a_key_is_wanted_where_there_are_keys(tiny):
    config = ServerConfig(keys=frozenset({digest(KEY), digest("another " + KEY)}), limits=SMALL)
    with serving(tiny, config) as url:
        for key in (KEY, "another " + KEY):
            assert ask(client_of(url, key)).content
        for key in ("wrong", KEY[:-1], KEY + "x"):
            with pytest.raises(openai.AuthenticationError, match="API key"):
                ask(client_of(url, key))
        for path in ("/v1/models", "/v1/voices", "/metrics", "/docs", "/openapi.json"):
            assert httpx.get(url + path).status_code == 401
            assert httpx.get(url + path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert httpx.get(url + "/v1/models", headers={"authorization": f"Basic {KEY}"}).status_code == 401
        assert httpx.get(url + "/health").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}, {"host": "["}]
)
def test_web_pages_of_elsewhere_are_kept_out(url, headers):
    assert httpx.get(f"{url}/v1/voices", headers=headers).status_code == 403


# ----------------------------------------------------------------------------------------------------------------- about


def test_the_description_needs_no_network(url):
    page = httpx.get(f"{url}/docs").text
    assert "/v1/audio/speech" in page and "response_format" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
    document = httpx.get(f"{url}/openapi.json").json()
    assert {"/v1/audio/speech", "/v1/voices", "/v1/models", "/health", "/metrics"} <= set(document["paths"])


def test_metrics_are_counted(client, url):
    ask(client)
    page = httpx.get(f"{url}/metrics").text
    assert 'mynah_requests_total{route="/v1/audio/speech",status="200"}' in page
    assert "mynah_first_sound_seconds_bucket" in page and "mynah_waiting 0.0" in page
