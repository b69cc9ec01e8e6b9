"""The door of the server: who may come in, how much they may bring, and how long they may take; and how it says no.

request ─► from where? ─► with a key? ─► how much? ─► how fast? ─► the app
               403            401           413          408        what it refuses has the same shape

All of this is decided here, before any of the app reads a byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tts.errors import CheckpointError, InputError, LanguageError, MynahError, PromptError, SettingsError, TextError
from tts.serve.server.schedule import Busy, Closing

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/health",)  # what needs no key
CODES = {
    TextError: "invalid_text",
    LanguageError: "invalid_language",
    PromptError: "invalid_voice",
    SettingsError: "invalid_value",
}
MISSING = {404: "there is nothing at this address; /openapi.json lists what there is", 405: "this address takes another method"}


@dataclass(frozen=True)
class Limits:
    """How much a server does for one, and for all."""

    characters: int = 10_000  # of a text
    upload: int = 10 * 2**20  # bytes of a recording
    seconds: float = 60.0  # of a recording
    waiting: int = 64  # requests that wait for a worker
    connections: int = 256  # requests of any kind at once
    uploads: int = 8  # recordings that come in at once
    patience: float = 30.0  # seconds that a client may take to send a request, or to take a piece of an answer
    temporary: int = 100  # voices that are forgotten after `keeps` seconds
    keeps: float = 3600.0
    voices: int = 1000  # in the user's folder
    reports: int = 1000  # that are remembered

    @property
    def json(self) -> int:
        """Bytes of a body of JSON: a character may be written in 12."""
        return 12 * self.characters + 2**16


class Refusal(MynahError):
    """An answer that is no: its status, and what OpenAI's clients find in `error`."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        more = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "2"}, 503: {"Retry-After": "60"}}
        return more.get(self.status, {})


def refusal_of(error: BaseException) -> Refusal:
    """What a client is told of an error; of our own faults, no more than that there was one."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Busy):
        return Refusal(429, str(error), "queue_full")
    if isinstance(error, Closing):
        return Refusal(503, str(error), "shutting_down")
    if isinstance(error, InputError):
        param = "voice" if isinstance(error, PromptError) else None
        return Refusal(400, str(error), CODES.get(type(error), "invalid_value"), param)
    if isinstance(error, CheckpointError):  # its message names paths
        return Refusal(
            400, "this voice was made for another system, or its file is broken; upload it again", "unusable_voice", "voice"
        )
    return Refusal(500, "this could not be answered, which is a fault of the server; its log tells more", "internal_error")


def read_keys(written: str) -> frozenset[bytes]:
    """Keys as a file or a variable holds them, apart by commas, spaces or lines (# begins a comment), as digests.

    Raises SettingsError: one is too short to be none's guess.
    """
    lines = (line.partition("#")[0] for line in written.splitlines())
    keys = [key for line in lines for key in line.replace(",", " ").split()]
    for key in keys:
        if len(key) < 16:
            raise SettingsError(f"an API key has 16 signs or more, got one of {len(key)}; `openssl rand -hex 24` makes one")
    return frozenset(digest(key) for key in keys)


def digest(key: str) -> bytes:
    """What is kept and compared of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def may_enter(keys: Iterable[bytes], authorization: str) -> bool:
    """Whether "Bearer KEY" has one of the keys; takes as long whichever it is, and however much of it is right."""
    scheme, _, key = authorization.partition(" ")
    given, found = digest(key.strip()), False
    for known in keys:
        found |= hmac.compare_digest(known, given)
    return found and scheme.lower() == "bearer"


class Guard:
    """An ASGI app around another.

    keys: digests; none: everybody may enter who does not come from a web page of elsewhere. hosts: the names by which a client
    without a key may call the server, () for any; that keeps pages out that have made their own name lead to this machine.
    observe: is told of each request (scope, status, seconds).
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        keys: frozenset[bytes] = frozenset(),
        hosts: tuple[str, ...] = (),
        observe: Callable[[MutableMapping[str, Any], int, float], None] = lambda scope, status, seconds: None,
    ) -> None:
        self.app, self.limits, self.keys, self.hosts, self.observe = app, limits, keys, hosts, observe
        self.inside = self.uploading = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(self.limits, scope, receive, send)
        self.inside += 1
        self.uploading += visit.uploads
        try:
            self._look(visit)
            await self.app(scope, visit.receive, visit.send)
        except Refusal as error:
            visit.refused = visit.refused if visit.refused is not None else error
        except TimeoutError:
            if not visit.slow:
                raise
        finally:
            self.inside -= 1
            self.uploading -= visit.uploads
            self.observe(scope, visit.status if visit.refused is None else visit.refused.status, visit.seconds)
        if visit.refused is not None and not visit.status:
            await visit.say_no(visit.refused)

    def _look(self, visit: _Visit) -> None:
        """Raise Refusal where a request may not come in."""
        header, limits = visit.header, self.limits
        host, origin = header("host"), header("origin")
        if self.hosts and not self.keys and _name(f"//{host}") not in self.hosts:
            raise Refusal(403, f"this server is not called {host!r}; it is for this machine alone", "wrong_host")
        if origin and not self.keys and origin not in (f"http://{host}", f"https://{host}"):
            raise Refusal(403, f"web pages of {origin!r} may not use this server", "wrong_origin")
        if self.keys and visit.path not in OPEN and not may_enter(self.keys, header("authorization")):
            raise Refusal(401, "give an API key of this server: Authorization: Bearer KEY", "invalid_api_key")
        if self.inside > limits.connections:
            raise Refusal(503, f"{limits.connections} requests are being answered, and no more may be", "too_many_connections")
        if self.uploading > limits.uploads:
            raise Refusal(429, f"{limits.uploads} recordings are coming in, and no more may at once", "too_many_uploads")
        if visit.method in ("POST", "PUT", "PATCH") and not (visit.uploads or visit.kind == "application/json"):
            raise Refusal(415, "send application/json, or a recording as multipart/form-data", "unsupported_media_type")
        if header("content-length").isdigit() and int(header("content-length")) > visit.most:
            raise visit.too_much()


class _Visit:
    """One request within its limits: what it sends is counted and timed, what it is sent carries the headers of the house."""

    def __init__(self, limits: Limits, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.path, self.method = str(scope["path"]), str(scope["method"])
        self.id = secrets.token_hex(16)
        self.status = 0  # of the answer; 0: none has begun
        self.refused: Refusal | None = None
        self.slow = False
        scope.setdefault("state", {})["id"] = self.id
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        self.header = lambda name: headers.get(name, "")
        self.kind = self.header("content-type").partition(";")[0].strip().lower()
        self.uploads = self.kind == "multipart/form-data"
        self.most = limits.upload + limits.json if self.uploads else limits.json
        self._receive, self._send, self._patience = receive, send, limits.patience
        self._clock = asyncio.get_running_loop().time
        self._began, self._count, self._whole = self._clock(), 0, False

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def too_much(self) -> Refusal:
        return Refusal(413, f"this request is too large; {self.most} bytes are accepted", "request_too_large")

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # which tells when the client has left
        try:
            async with asyncio.timeout_at(self._began + self._patience):
                message = await self._receive()
        except TimeoutError as error:
            self.refused = Refusal(408, f"the request was not there after {self._patience:g} seconds", "timeout")
            raise self.refused from error
        self._count += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._count > self.most:
            self.refused = self.too_much()
            raise self.refused
        return message

    async def send(self, message: Message) -> None:
        if self.refused is not None and not self.status:
            return  # the app answers a request that was refused meanwhile
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {"x-request-id": self.id, "x-content-type-options": "nosniff", "cache-control": "no-store"}
            encoded = [(name.encode(), value.encode()) for name, value in own.items()]
            message = {**message, "headers": [*message.get("headers", ()), *encoded]}
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            self.slow = True
            raise

    async def say_no(self, refusal: Refusal) -> None:
        body = json.dumps(refusal.body).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **refusal.headers,
        }
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self.refused = None
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def _name(address: str) -> str:
    """A host without its port: "//[::1]:8000" to "::1"; of what is no address, ""."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
