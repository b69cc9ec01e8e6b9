"""A live server on loopback, clients of it, and recordings to upload; what the tests of the server share."""

import contextlib
import io
import socket
import threading
import time

import numpy as np
import pytest
import soundfile
from conftest import RATE, speech

from tts.recording import read
from tts.serve.server.guard import Limits

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)
openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")

from tts.serve.http import ServerConfig, make_app  # noqa: E402

SMALL = Limits(characters=2_000, upload=2**20, seconds=5.0, waiting=64)


@contextlib.contextmanager
def serving(synthesizer, config=ServerConfig(limits=SMALL)):
    """A live server on loopback; gives its address."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(synthesizer, config)
    options = {"http": "h11", "ws": "none", "log_level": "critical", "timeout_graceful_shutdown": 5}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive(), "the server hangs"


def client_of(url, key="none is needed"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)


def ask(client, text="One.", **options):
    kind = options.pop("response_format", "wav")
    extra = {"seed": 0, **options.pop("extra", {})}
    return client.audio.speech.create(
        model="tiny", voice=options.pop("voice", "tiny"), input=text, response_format=kind, extra_body=extra, **options
    )


def samples_of(content):
    return read(io.BytesIO(content))[0].numpy()


def streamed(tiny, text, **options):
    return np.concatenate(list(tiny.stream(text, "voice:tiny", **options)))


def recorded(seconds=2.0, kind="WAV", hz=140.0):
    buffer = io.BytesIO()
    soundfile.write(buffer, speech(seconds, hz=hz), RATE, format=kind)
    return buffer.getvalue()


def upload(url, data, **fields):
    return httpx.post(f"{url}/v1/voices", files={"audio_sample": ("me.wav", data)}, data=fields, timeout=60)


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
