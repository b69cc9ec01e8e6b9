"""Who waits, who is turned away, and what stops when somebody leaves."""

import socket
import threading
import time

import pytest
from live import SMALL, httpx, serving, until

from tts.serve.http import ServerConfig
from tts.serve.server.guard import Limits


class Slow:
    """Makes the tiny system's streams wait for a sign before each chunk, and counts what was closed."""

    def __init__(self, monkeypatch, tiny):
        self.go, self.made, self.closed = threading.Event(), 0, 0
        original = tiny.stream

        def stream(*given, **options):
            inner = original(*given, **options)
            chunks, slow = inner._chunks, self

            def waiting():
                try:
                    while True:
                        try:
                            chunk = next(chunks)
                        except StopIteration as end:
                            return end.value
                        slow.made += 1
                        yield chunk
                        slow.go.wait(20)
                finally:
                    slow.closed += 1
                    chunks.close()

            inner._chunks = waiting()
            return inner

        monkeypatch.setattr(tiny, "stream", stream)


@pytest.fixture
def slow(tiny, monkeypatch):
    """A server of one worker, whose streams wait; one request may wait behind them."""
    control = Slow(monkeypatch, tiny)
    with serving(tiny, ServerConfig(1, limits=Limits(waiting=1, patience=2.0))) as url:
        try:
            yield control, url
        finally:
            control.go.set()


BODY = {"model": "tiny", "voice": "tiny", "input": "One, two, three, four, five.", "response_format": "pcm"}


def test_when_the_client_leaves_the_work_stops(slow):
    control, url = slow
    with httpx.stream("POST", f"{url}/v1/audio/speech", json=BODY, timeout=20) as answer:
        next(answer.iter_bytes())
    time.sleep(0.2)
    control.go.set()
    until(lambda: control.closed == 1)
    assert control.made <= 2
    until(lambda: "mynah_cancelled_total 1.0" in httpx.get(f"{url}/metrics").text)


def test_who_leaves_the_queue_is_never_begun_and_who_finds_it_full_is_told(slow):
    control, url = slow

    def left():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/audio/speech", json=BODY, timeout=httpx.Timeout(20, read=3.0))

    with httpx.stream("POST", f"{url}/v1/audio/speech", json=BODY, timeout=20) as first:
        pieces = first.iter_bytes()
        next(pieces)
        waits = threading.Thread(target=left)
        waits.start()
        until(lambda: httpx.get(f"{url}/health").json()["waiting"] == 1)
        full = httpx.post(f"{url}/v1/audio/speech", json=BODY)
        assert full.status_code == 429 and full.headers["retry-after"] and full.json()["error"]["code"] == "queue_full"
        waits.join()
        until(lambda: httpx.get(f"{url}/health").json()["waiting"] == 0)
        control.go.set()
        assert b"".join(pieces)
    until(lambda: httpx.get(f"{url}/health").json()["running"] == 0)
    assert control.closed == 1


def test_the_end_of_the_server_ends_what_is_spoken(tiny, monkeypatch):
    control = Slow(monkeypatch, tiny)
    with (
        pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
        serving(tiny, ServerConfig(1, limits=SMALL)) as url,
        httpx.stream("POST", f"{url}/v1/audio/speech", json=BODY, timeout=20) as answer,
    ):
        pieces = answer.iter_bytes()
        next(pieces)
        threading.Timer(0.5, control.go.set).start()
        raise httpx.ReadError("left")
    until(lambda: control.closed == 1)


def test_a_request_that_never_ends_is_given_up(slow):
    _, url = slow
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        headers = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
        line.sendall(f"POST /v1/audio/speech HTTP/1.1\r\n{headers}\r\n{{".encode())
        assert b" 408 " in line.recv(1000)
