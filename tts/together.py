"""Several requests at once on a GPU: what their threads ask of a part at the same time goes through it as one stack.

thread 1  speak ─► backend.generate(1 row) ──┐   ┌─ stack of 3 rows, padded ─► backend ─┐   ┌─► thread 1 goes on
thread 2  speak ─► backend.generate(1 row) ──┼─►─┤                                      ├─►─┼─► thread 2 …
thread 3  speak ─► backend.generate(1 row) ──┘   └─ (the others wait for the next one) ─┘   └─► thread 3 …

Each thread does what it does alone: seed, plan, prompt, check and tries are its own, and `Synthesizer.speak` knows nothing of
this. A stack holds what is of one part, one set of settings and about one length. On a CPU every part still works row after row
(backends do so by themselves), so there the samples are those of one by one, bit for bit; on a GPU they agree closely.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.clock import for_others
from tts.errors import MynahError
from tts.frames import Frames, Plan, Prompt, Tokens, Utterance, Wave
from tts.interfaces import Backend
from tts.parts import Parts

MOST = 16  # threads that speak side by side
FRAMES = 16_384  # in a stack, padding included; one row may be longer
PATIENCE = 0.01  # seconds for which a call waits for those who could join it; most find it sooner that nobody else can
Asked = TypeVar("Asked")
Given = TypeVar("Given")


@dataclass(eq=False)
class _Call:
    """What one thread asks of a part. key: calls of an equal one may be stacked. size: in frames."""

    key: tuple[Any, ...]
    act: Callable[[Sequence[Any]], Sequence[Any]]
    value: Any
    size: int
    since: float
    done: bool = False
    result: Any = None
    error: BaseException | None = None
    own: float = 0.0  # seconds of work that were its share


class Company:
    """Threads that speak at the same time, and where their calls meet. largest: rows of the largest stack so far."""

    def __init__(self, frames: int = FRAMES, patience: float = PATIENCE) -> None:
        self.frames, self.patience, self.largest = frames, patience, 0
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._seats = 0
        self._working = False

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Around what a thread speaks: while it does, the others wait a moment for it to join them."""
        with self._changed:
            self._seats += 1
        try:
            yield
        finally:
            with self._changed:
                self._seats -= 1
                self._changed.notify_all()

    def parts(self, parts: Parts) -> Parts:
        """The same parts, which meet here whatever is asked of them."""
        rows = parts.device.type == "cpu"
        backends = {name: self._backend(name, backend) for name, backend in parts.backends.items()}
        hears = self._framed("recognizer", parts.recognizer.posteriors, rows)
        sounds = self._framed("vocoder", parts.vocoder.decode, rows)
        recognizer, vocoder = _with(parts.recognizer, posteriors=hears), _with(parts.vocoder, decode=sounds)
        return replace(parts, backends=backends, recognizer=recognizer, vocoder=vocoder)

    def _backend(self, name: str, backend: Backend) -> Backend:
        def generate(utterance: Utterance, settings: Any) -> Frames:
            if (
                len(utterance.seeds) != 1
                or utterance.plan is None
                or utterance.context is not None
                or utterance.content is not None
            ):
                return backend.generate(utterance, settings)
            size = int(utterance.plan.frames(backend.emits.rate)) + _heard(utterance.prompt, backend)
            key = ("backend", name, repr(settings), _shape(utterance))
            return self._meet(key, lambda rows: apart(backend.generate(stacked(rows), settings)), utterance, size)

        return _with(backend, generate=generate)

    def _framed(self, name: str, part: Callable[[Frames], Any], rows: bool) -> Callable[[Frames], Any]:
        """A part that takes frames. rows: it does one row after another."""

        def act(given: Sequence[Frames]) -> list[Any]:
            return [part(one) for one in given] if rows else apart(part(_side_by_side(given)))

        def meet(frames: Frames) -> Any:
            if len(frames.lengths) != 1:
                return part(frames)
            return self._meet((name, frames.spec, frames.data.dtype), act, frames, frames.data.shape[2])

        return meet

    # ----------------------------------------------------------------------------------------------------- the meeting

    def _meet(self, key: tuple[Any, ...], act: Callable[[Sequence[Any]], Sequence[Any]], value: Any, size: int) -> Any:
        """What act([…, value, …]) gives for the value. Raises what it raises for the value alone."""
        begun = time.perf_counter()
        call = _Call((*key, size.bit_length()), act, value, size, begun)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
            while not call.done:
                if not self._working and (rest := self._wait_for(call)) <= 0:
                    self._work(self._next())
                else:
                    self._changed.wait(None if self._working else rest)
        for_others(time.perf_counter() - begun - call.own)
        if call.error is not None:
            raise call.error
        return call.result

    def _wait_for(self, call: _Call) -> float:
        """For how many more seconds somebody could still join."""
        return 0.0 if len(self._waiting) >= self._seats else self._waiting[0].since + self.patience - time.perf_counter()

    def _next(self) -> list[_Call]:
        """The longest stack of those that wait, the oldest call in it, taken out of them."""
        first, longest = self._waiting[0], 0
        taken: list[_Call] = []
        for call in self._waiting:
            longest = max(longest, call.size)
            if call.key == first.key and (call is first or longest * (len(taken) + 1) <= self.frames):
                taken.append(call)
        self._waiting = [call for call in self._waiting if call not in taken]
        return taken

    def _work(self, stack: list[_Call]) -> None:
        """Do a stack, in this thread, while the others wait. Called with the lock, which is free meanwhile."""
        self._working = True
        self.largest = max(self.largest, len(stack))
        self._changed.release()
        try:
            _do(stack)
            # of one of them, or of their number: whose it is, each finds out alone
            if len(stack) > 1 and isinstance(stack[0].error, MynahError | torch.OutOfMemoryError):
                for call in stack:
                    _do([call])
        finally:
            self._changed.acquire()
            self._working = False
            for call in stack:
                call.done = True
            self._changed.notify_all()


def _do(stack: list[_Call]) -> None:
    """Fill in results or errors, and each call's share of the time, by its size."""
    before, whole = time.perf_counter(), sum(call.size for call in stack) or 1
    try:
        results = stack[0].act([call.value for call in stack])
        for call, result in zip(stack, results, strict=True):
            call.result, call.error = result, None
    except BaseException as error:  # it is raised in the threads that asked
        for call in stack:
            call.error = error
    spent = time.perf_counter() - before
    for call in stack:
        call.own += spent * call.size / whole


def seated(company: Company | None) -> AbstractContextManager[None]:
    """A seat, where there is a company."""
    return company.seat() if company is not None else nullcontext()


def side_by_side(
    act: Callable[[Asked], Given], asked: Iterable[Asked], company: Company, threads: int = MOST
) -> Iterator[Given]:
    """act(one) for each, in their order, so many at a time; they are asked for a little ahead of what is taken."""

    def beside(one: Asked) -> Given:
        with company.seat():
            return act(one)

    coming: deque[Future[Given]] = deque()
    executor = ThreadPoolExecutor(threads, "mynah-together")
    try:
        for one in asked:
            coming.append(executor.submit(beside, one))
            if len(coming) >= 2 * threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


# ------------------------------------------------------------------------------------------------------ rows to a stack


def stacked(rows: Sequence[Utterance]) -> Utterance:
    """Utterances of one row and one shape (see `_shape`), of unequal lengths, as one of several rows."""
    if len(rows) == 1:
        return rows[0]
    plans = [row.plan for row in rows if row.plan is not None]
    prompts = [row.prompt for row in rows if row.prompt is not None]
    return Utterance(
        _tokens([row.tokens for row in rows]),
        torch.cat([row.seeds for row in rows]),
        _prompts(prompts) if prompts else None,
        Plan(torch.cat([plan.seconds for plan in plans]), _padded([plan.token_seconds for plan in plans])),
    )


def apart(made: Frames | Wave) -> list[Any]:
    """The rows of frames or of a wave, each as long as it is."""
    whole = made.data if isinstance(made, Frames) else made.samples
    rows = [(whole[b : b + 1, ..., :n], made.lengths[b : b + 1]) for b, n in enumerate(made.lengths.tolist())]
    rest = (made.spec,) if isinstance(made, Frames) else (made.sample_rate,)
    return [type(made)(*row, *rest) for row in rows]


def _side_by_side(rows: Sequence[Frames]) -> Frames:
    data = _padded([row.data for row in rows])
    assert data is not None
    return Frames(data, torch.cat([row.lengths.to(data.device) for row in rows]), rows[0].spec)


def _prompts(prompts: Sequence[Prompt]) -> Prompt:
    frames = {name: _side_by_side([prompt.frames[name] for prompt in prompts]) for name in prompts[0].frames}
    seconds = torch.cat([prompt.seconds for prompt in prompts])
    tokens = _tokens([prompt.tokens for prompt in prompts])
    lasting = _padded([prompt.token_frames for prompt in prompts])
    return Prompt(frames, tokens, seconds, lasting, _padded([prompt.speaker for prompt in prompts]))


def _tokens(rows: Sequence[Tokens]) -> Tokens:
    return Tokens.of([row.ids[0, : int(row.lengths[0])].tolist() for row in rows], rows[0].table)


def _padded(rows: Sequence[Tensor | None]) -> Tensor | None:
    """[1, …, T_b] each to [B, …, T]; None where they are not there."""
    there = [row for row in rows if row is not None]
    T = max((row.shape[-1] for row in there), default=0)
    return torch.cat([F.pad(row, (0, T - row.shape[-1])) for row in there]) if there else None


def _shape(utterance: Utterance) -> tuple[Any, ...]:
    """What must be alike in utterances that are stacked: which of their fields are there, and of what kind."""
    assert utterance.plan is not None
    prompt = utterance.prompt
    about: tuple[Any, ...] = ()
    if prompt is not None:
        kinds = tuple(sorted((name, frames.spec, frames.data.dtype) for name, frames in prompt.frames.items()))
        about = (kinds, prompt.tokens.table, prompt.token_frames is None, prompt.speaker is None)
    return utterance.tokens.table, utterance.plan.token_seconds is None, about


def _heard(prompt: Prompt | None, backend: Backend) -> int:
    """How many frames of the prompt a backend reads."""
    heard = [] if prompt is None else [prompt.frames[name] for name in backend.needs if name in prompt.frames]
    return max((int(frames.lengths[0]) for frames in heard), default=0)


def _with(part: Any, **methods: Any) -> Any:
    """The same part with other methods. A copy, not a wrapper: what asks for its class or its protocols finds them."""
    other = copy(part)
    for name, method in methods.items():
        object.__setattr__(other, name, method)
    return other
