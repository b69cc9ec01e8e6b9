"""Who is served when: a bounded queue, a few threads that work it off, and jobs that stop when nobody waits for them.

submit ─► waiting: 1 2 3 … (bounded; beyond it, Busy) ─► threads ─► pieces ─► `async for piece in job`
                                                            ▲                      │
                                                            └──── cancel ◄─────────┘  before the next piece

Threads, not processes: they share the weights and the voices, and torch lets go of the interpreter while it computes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from tts.errors import MynahError

log = logging.getLogger(__name__)


class Busy(MynahError):
    """As many requests wait as may."""


class Closing(MynahError):
    """The server is about to end, and begins nothing new."""


class Gone(MynahError):
    """Nobody waits for the answer any more; raised within the work, to end it."""


Work = Callable[["Job"], Generator[Any, None, None]]


class Job(AsyncIterator[Any]):
    """Work that was asked for: its pieces as they are made, in the event loop that has asked. What it raises is raised there.

    Pieces wait in memory, however slowly they are taken, so a slow reader keeps no thread from others.
    """

    def __init__(self, pool: Pool, work: Work) -> None:
        self._pool, self._work = pool, work
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._stop = threading.Event()
        self.ended = False  # and everything of it was taken

    async def __anext__(self) -> Any:
        kind, value = await self._pieces.get()
        if kind == "piece":
            return value
        self.ended = True
        self._pieces.put_nowait((kind, value))  # the end stays the end
        if kind == "error":
            raise value
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Stop before the next piece, or never begin. Does no harm to a job that has ended."""
        self._stop.set()
        self._pool.forget(self)
        self._tell("error", Gone("it was cancelled"))

    def check(self) -> None:
        """Called within the work, where it may end early. Raises Gone."""
        if self._stop.is_set():
            raise Gone("nobody waits for this any more")

    def run(self) -> None:
        """In a thread: do the work."""
        try:
            with closing(self._work(self)) as pieces:
                for piece in pieces:
                    self._tell("piece", piece)
                    self.check()
            self._tell("end", None)
        except MynahError as error:
            self._tell("error", error)
        except BaseException as error:  # a fault of ours: it goes to who has asked, and the thread lives on
            log.exception("a request could not be answered")
            self._tell("error", error)

    def _tell(self, kind: str, value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, (kind, value))
        except RuntimeError:  # the loop has ended, and everybody with it
            self._stop.set()


class Pool:
    """Threads that do jobs, in the order in which these were asked for."""

    def __init__(self, workers: int, waiting: int, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        """workers: how many at once. waiting: how many more may wait for their turn. around: what each is done within."""
        self.workers, self.most, self._around = workers, waiting, around
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._changed = threading.Condition()
        self._closed = False
        names = (f"mynah-{number}" for number in range(workers))
        self._threads = [threading.Thread(target=self._live, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, work: Work) -> Job:
        """A job that is done when its turn comes. work(job): a generator of pieces. Raises Busy, Closing."""
        job = Job(self, work)
        with self._changed:
            if self._closed:
                raise Closing("the server is about to stop; ask again in a minute")
            idle = self.workers - len(self._running)
            if len(self._waiting) >= self.most + idle:
                raise Busy(f"{len(self._waiting)} requests wait already, and no more may; ask again in a few seconds")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def forget(self, job: Job) -> None:
        """Take a job out of the queue, if it is still there."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def refuse(self) -> None:
        """Begin nothing new from now on; what was asked for is done."""
        with self._changed:
            self._closed = True

    def close(self, seconds: float = 10.0) -> None:
        """Stop everything, and wait for the threads at most so long each."""
        self.refuse()
        with self._changed:
            jobs = [*self._waiting, *self._running]
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        for thread in self._threads:
            thread.join(seconds)

    def _live(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self._running.add(job)
            with self._around():
                job.run()
            with self._changed:
                self._running.discard(job)
