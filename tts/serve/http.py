"""Speech over HTTP, as OpenAI's clients ask for it: the addresses, what they take, and what they answer.

client ─► Guard ─► address ─► Pool ─► Desk ─► pieces ─► client
          guard              schedule  speech  sounds      of server/

This file has no `from __future__ import annotations`: FastAPI reads the annotations of functions that are made here, below.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tts import __version__
from tts.errors import MissingPackageError, MynahError
from tts.frames import Request as Spoken
from tts.pipeline import Synthesizer
from tts.serve.server.guard import LOOPBACK, MISSING, Guard, Limits, Refusal, refusal_of
from tts.serve.server.manual import write_manual
from tts.serve.server.metrics import Metrics
from tts.serve.server.schedule import Gone, Job, Pool
from tts.serve.server.shelf import DEFAULT, Shelf, Shelved
from tts.serve.server.sounds import PCM_RATE, TYPES
from tts.serve.server.speech import Desk, Wish
from tts.together import seated

if TYPE_CHECKING:
    from fastapi import FastAPI, Response

ABOUT = "Text to speech in any voice. docs/server.md has examples; errors have the shape of OpenAI's."
SAYS = {
    400: "What is asked for cannot be done; the message says what can.",
    401: "No API key of this server.",
    403: "A web page of elsewhere, or a voice that stays.",
    404: "There is no such thing.",
    408: "The request took too long to come.",
    409: "The name is taken, or too many voices are kept.",
    413: "The request or the recording is too large.",
    415: "Not the kind of content that is taken here.",
    422: "A field is missing, unknown, or not what it should be.",
    429: "Too many requests wait; Retry-After says when to come again.",
    500: "A fault of the server.",
    503: "The server is about to stop, or has too many connections.",
}


@dataclass(frozen=True)
class ServerConfig:
    """workers: threads that speak. host: the address it is bound to. keys: digests (`read_keys` of server/guard.py); none: all
    may enter."""

    workers: int = 2
    host: str = "127.0.0.1"
    keys: frozenset[bytes] = frozenset()
    limits: Limits = field(default_factory=Limits)


def make_app(synthesizer: Synthesizer, config: ServerConfig = ServerConfig()) -> Guard:
    """An ASGI app, for `uvicorn.run`. It starts threads, which end with its lifespan; on a GPU they speak side by side.

    Raises MissingPackageError.
    """
    try:
        from fastapi import FastAPI
        from fastapi.exceptions import RequestValidationError
        from starlette.exceptions import HTTPException
    except ImportError as error:
        raise MissingPackageError("the server needs FastAPI; run `pip install 'mynah-tts[serve]'`") from error
    limits = config.limits
    if synthesizer.parts.device.type == "cuda" and synthesizer.company is None:
        synthesizer = synthesizer.together()
    pool = Pool(config.workers, limits.waiting, lambda: seated(synthesizer.company))
    metrics = Metrics(pool)
    shelf = Shelf(synthesizer, limits)
    desk = Desk(synthesizer, shelf, limits, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.refuse()
        await asyncio.to_thread(pool.close)

    app = FastAPI(title="Mynah", version=__version__, description=ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_exception_handler(MynahError, lambda request, error: _no(refusal_of(error)))
    app.add_exception_handler(Exception, lambda request, error: _no(refusal_of(error)))
    app.add_exception_handler(RequestValidationError, lambda request, error: _no(_unfit(error)))
    app.add_exception_handler(HTTPException, lambda request, error: _no(_missing(error), getattr(error, "headers", None)))
    _add_speech(app, pool, desk, metrics)
    _add_voices(app, pool, shelf)
    _add_about(app, pool, desk, metrics)
    hosts = LOOPBACK if config.host in LOOPBACK else ()
    return Guard(app, limits, config.keys, hosts, metrics.observe)


# ---------------------------------------------------------------------------------------------------------------- speech


def _add_speech(app: "FastAPI", pool: Pool, desk: Desk, metrics: Metrics) -> None:
    from fastapi import Request, Response
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel, ConfigDict, Field

    class VoiceId(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        id: str = Field(min_length=1, max_length=64)

    class Speech(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        input: str = Field(min_length=1, max_length=desk.limits.characters, description="What to say.")
        model: str = Field(max_length=64, description=f"One of {', '.join(desk.models)}; OpenAI's names mean the first.")
        voice: Annotated[str, Field(min_length=1, max_length=64)] | VoiceId = Field(
            DEFAULT, description="One of /v1/voices, or what uploading a recording there has given."
        )
        response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = Field(
            "mp3", description="pcm: 16 bits, little-endian, 24 kHz. All but flac come while they are made."
        )
        speed: float = Field(1.0, ge=0.2, le=5.0, description="How many times the voice's own pace.")
        stream_format: Literal["audio", "sse"] = Field("audio", description="The file itself, or events with parts of it.")
        stream: bool = Field(True, description="false: it is checked, tried again where words are missing, and sent whole.")
        seed: int = Field(0, ge=0, lt=2**63, description="Another seed says the same in another way.")
        backend: str | None = Field(None, max_length=64, description="By default, one that streams; else the clearest.")
        language: str | None = Field(None, max_length=64, description="As espeak names it, such as en-gb.")
        settings: dict[str, bool | int | float | str | None] | None = Field(None, description="Of the backend: steps, …")
        instructions: str | None = Field(None, max_length=0, description="Nothing here follows instructions.")

    class Streamed(StreamingResponse):
        """Stops the work however the answer ends."""

        def __init__(self, job: Job, pieces: AsyncIterator[Any], **options: Any) -> None:
            super().__init__(pieces, **options)
            self.job = job

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                metrics.cancelled.inc(not self.job.ended)
                self.job.cancel()

    sound = {"schema": {"type": "string", "format": "binary"}}
    event = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
    content = dict.fromkeys(sorted(set(TYPES.values())), sound) | {"text/event-stream": {"schema": event}}

    @app.post(
        "/v1/audio/speech",
        response_class=Response,
        responses={200: {"content": content, "description": "The sound."}, **_errors(400, 404, 408, 413, 415, 429, 503)},
    )
    async def speech(asked: Speech, request: Request) -> Response:
        """Say a text. X-Request-Id of the answer is the number of its report at /v1/audio/reports."""
        backend = desk.backend(asked.model, asked.backend, asked.stream)
        voice = asked.voice if isinstance(asked.voice, str) else asked.voice.id
        spoken = Spoken(asked.input, backend=backend, seed=asked.seed, speed=asked.speed, language=asked.language)
        spoken = replace(spoken, settings=asked.settings)
        wish = Wish(spoken, voice, asked.response_format, asked.stream)
        desk.check(wish)
        began = asyncio.get_running_loop().time()
        number = request.state.id
        job = pool.submit(desk.work(wish, number))
        first: bytes | None = None
        try:
            first = await _first(job, request)
        finally:
            if first is None:
                job.cancel()
        metrics.first.observe(asyncio.get_running_loop().time() - began)
        headers = {"X-Mynah-Report": f"/v1/audio/reports/{number}", "X-Mynah-Backend": backend}
        kind = TYPES[wish.kind]
        if wish.kind == "pcm":
            kind += f";rate={PCM_RATE};channels=1"
        if asked.stream_format == "sse":
            return Streamed(job, _events(first, job, desk, number), media_type="text/event-stream", headers=headers)
        if not asked.stream:
            passed = json.dumps(desk.report(number)["passed"])
            return Response(first, media_type=kind, headers={**headers, "X-Mynah-Passed": passed})
        return Streamed(job, _chunks(first, job), media_type=kind, headers=headers)

    @app.get("/v1/audio/reports/{number}", responses=_errors(404))
    async def report(number: str) -> dict[str, Any]:
        """How an answer was made: its seed and settings, and sentence by sentence what the recognizer missed in it."""
        return desk.report(number)


async def _first(job: Job, request: Any) -> bytes:
    """The first piece. Raises Gone where the client leaves before it is there; what the work raises."""
    piece, gone = asyncio.ensure_future(anext(job)), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((piece, gone), return_when=asyncio.FIRST_COMPLETED)
        if not piece.done():
            raise Gone("the client has left")
        return piece.result()
    finally:
        for task in (piece, gone):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _left(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chunks(first: bytes, job: Job) -> AsyncIterator[bytes]:
    yield first
    async for piece in job:
        yield piece


async def _events(first: bytes, job: Job, desk: Desk, number: str) -> AsyncIterator[str]:
    """The same as OpenAI's server-sent events; an error, which has no status any more, is one of them."""

    def event(kind: str, **told: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **told}, default=str)}\n\n"

    try:
        async for piece in _chunks(first, job):
            yield event("speech.audio.delta", audio=base64.b64encode(piece).decode())
        yield event("speech.audio.done", report=desk.report(number))
    except MynahError as error:
        yield event("error", **refusal_of(error).body)


# ---------------------------------------------------------------------------------------------------------------- voices


def _add_voices(app: "FastAPI", pool: Pool, shelf: Shelf) -> None:
    from fastapi import APIRouter, File, Form, UploadFile

    longest = shelf.limits.characters
    router = APIRouter()

    @router.get("")
    async def voices() -> dict[str, Any]:
        """The voices there are, but for temporary ones."""
        return {"object": "list", "data": [_shown(voice) for voice in await asyncio.to_thread(shelf.all)]}

    @router.post("", responses=_errors(400, 408, 409, 413, 415, 429, 503))
    async def add(
        audio_sample: Annotated[UploadFile, File(description="A recording of one speaker; 3 to 12 seconds are best.")],
        name: Annotated[str | None, Form(description="To keep the voice by; none: it is forgotten after a while.")] = None,
        text: Annotated[str | None, Form(max_length=longest, description="What is said in it, if you know.")] = None,
        consent: Annotated[str, Form(max_length=longest, description="The statement by which the speaker has agreed.")] = "",
        type: Annotated[Literal["audio_sample"], Form()] = "audio_sample",  # noqa: A002
    ) -> dict[str, Any]:
        """Make a voice of a recording. Its id goes wherever a voice does."""
        if name is not None:
            shelf.check_free(name)
        data = await audio_sample.read(shelf.limits.upload + 1)
        if len(data) > shelf.limits.upload:
            most = f"a recording may have {shelf.limits.upload} bytes, and this one has more"
            raise Refusal(413, most, "audio_too_large", "audio_sample")
        job = pool.submit(lambda job: make_voice(shelf, name, data, text, consent))
        return _shown(await anext(job))

    @router.get("/{voice}", responses=_errors(404))
    async def voice(voice: str) -> dict[str, Any]:
        """One voice, a temporary one too."""
        return _shown(await asyncio.to_thread(shelf.find, voice))

    @router.delete("/{voice}", responses=_errors(403, 404))
    async def remove(voice: str) -> dict[str, Any]:
        """Forget a voice, and delete its file where there is one."""
        await asyncio.to_thread(shelf.remove, voice)
        return {"id": voice, "object": "audio.voice.deleted", "deleted": True}

    app.include_router(router, prefix="/v1/voices")
    app.include_router(router, prefix="/v1/audio/voices", include_in_schema=False)  # where OpenAI's client looks


def make_voice(shelf: Shelf, name: str | None, data: bytes, text: str | None, consent: str) -> Any:
    """The work of making a voice, as the pool takes it."""
    yield shelf.keep(name, data, text, consent) if name is not None else shelf.lend(data, text, consent)


def _shown(voice: Shelved) -> dict[str, Any]:
    told = asdict(voice)
    return {"id": told.pop("id"), "object": "audio.voice", "name": voice.id, "created_at": told.pop("created"), **told}


# ----------------------------------------------------------------------------------------------------------------- about


def _add_about(app: "FastAPI", pool: Pool, desk: Desk, metrics: Metrics) -> None:
    from fastapi import Response
    from fastapi.responses import HTMLResponse, PlainTextResponse

    def model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "mynah"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The system, and each of its backends."""
        return {"object": "list", "data": [model(name) for name in desk.models]}

    @app.get("/v1/models/{name:path}", responses=_errors(404))
    async def one_model(name: str) -> dict[str, Any]:
        """One model."""
        desk.backend(name, None, True)
        return model(name)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it is up; needs no key."""
        return {
            "status": "ok",
            "version": __version__,
            "model": desk.models[0],
            "running": pool.running,
            "waiting": pool.waiting,
        }

    @app.get("/metrics", response_class=PlainTextResponse)
    async def numbers() -> Response:
        """Counters, for Prometheus."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        return write_manual(app.openapi())


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: which refusals an address knows, besides those that all know."""
    shape = {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}}
    param = {"param": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    error = {"type": "object", "properties": {**shape, **param}, "required": [*shape, *param]}
    schema = {"type": "object", "properties": {"error": error}, "required": ["error"]}
    content = {"application/json": {"schema": schema}}
    return {status: {"description": SAYS[status], "content": content} for status in sorted({*statuses, 401, 403, 422, 500})}


def _no(refusal: Refusal, headers: Any = None) -> "Response":
    from fastapi.responses import JSONResponse

    return JSONResponse(refusal.body, refusal.status, {**refusal.headers, **(headers or {})})


def _unfit(error: Any) -> Refusal:
    """What pydantic found, as one sentence on the first of it."""
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"] if step not in ("body", "query", "path"))
    if first["type"] == "json_invalid":
        return Refusal(400, "the body is no JSON", "invalid_json")
    return Refusal(422, f"{place or 'the body'}: {first['msg']}", first["type"], place or None)


def _missing(error: Any) -> Refusal:
    message = MISSING.get(error.status_code, str(error.detail))
    return Refusal(error.status_code, message, "not_found" if error.status_code == 404 else "bad_request")
