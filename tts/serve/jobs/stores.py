"""Where a batch is written: a folder of this machine, or one behind a URL. It holds sounds, and books of one line an item.

    Folder                            Bucket
    OUT/ID.wav                        URL/ID.wav
    OUT/results.jsonl                 URL/results.jsonl                     what earlier runs wrote
                                      URL/results.jsonl.lines/00000007      a line of this run

Object stores cannot add to a file. So a line is an object of its own there, until the run ends, or the next one begins, and
all lines are gathered into the book.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tts.errors import InputError, OutputError
from tts.files import write_whole
from tts.serve.jobs.urls import local, opened

LINES = ".lines"  # with this after its name, the folder of a book's lines


class Store(Protocol):
    """A place for the files of one batch, by their names. Whatever writes raises OutputError."""

    def only_writer(self) -> Any:
        """A context in which it is there, and as far as can be told nobody else's."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def add(self, book: str, told: Any) -> None:
        """Write down a line, as JSON."""
        ...

    def read(self, book: str) -> bytes:
        """All lines of a book; none, if there is no such book."""
        ...

    def digest(self, name: str) -> str | None:
        """SHA-256 of a file, None where there is none."""
        ...

    def remove(self, name: str) -> None:
        """A file or a book, if it is there."""
        ...

    def where(self, name: str) -> str:
        """What to call a file in a sentence."""
        ...


def store_at(place: str | Path) -> Store:
    """A folder where it is one of this machine, file:///… included. Raises InputError, MissingPackageError."""
    path = local(place)
    return Folder(path) if path is not None else Bucket(str(place))


class Folder:
    """A folder of this machine; one batch at a time may write to it (on Windows a second one is not noticed)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error.strerror}); give a folder you may write to") from error
        with lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows
                pass
            except OSError as error:
                raise OutputError(f"another batch is writing to {self.path}; wait for it, or give another folder") from error
            for part in self.path.glob(".*.part"):  # of a run that was killed
                part.unlink()
            yield

    def write(self, name: str, data: bytes) -> None:
        write_whole(self.path / name, data)

    def add(self, book: str, told: Any) -> None:
        path = self.path / book
        try:
            with open(path, "ab", buffering=0) as file:
                file.write(_line(told))
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}); the same command goes on when it can") from error

    def read(self, book: str) -> bytes:
        path = self.path / book
        return path.read_bytes() if path.exists() else b""

    def digest(self, name: str) -> str | None:
        path = self.path / name
        return digest(path) if path.is_file() else None

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def where(self, name: str) -> str:
        return str(self.path / name)


class Bucket:
    """A folder behind a URL. That nobody else writes to it is not seen to; that a file is whole or not there is as true as
    the store makes it: of s3, gs, az and memory it is."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self.system, self.path = opened(self.url)
        self._counts = Counter[str]()  # lines of this run

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        with self._telling(""):
            self.system.makedirs(self.path, exist_ok=True)  # nothing, where folders are only names
        try:
            yield
        finally:
            for book in list(self._counts):
                self._gather(book)

    def write(self, name: str, data: bytes) -> None:
        with self._telling(name):
            self.system.pipe_file(self._at(name), data)

    def add(self, book: str, told: Any) -> None:
        number = self._counts[book]
        self.write(f"{book}{LINES}/{number:08}", _line(told))
        self._counts[book] += 1

    def read(self, book: str) -> bytes:
        self._gather(book)
        try:
            return self.system.cat_file(self._at(book))
        except FileNotFoundError:
            return b""
        except OSError as error:  # unlike what is not there, this must not be taken for an empty book
            raise InputError(f"{self.where(book)} cannot be read ({error}); may you read it?") from error

    def digest(self, name: str) -> str | None:
        try:
            with self.system.open(self._at(name), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        self._counts[name] = 0
        for path in [*self._lines(name), self._at(name)]:
            with self._telling(name), suppress(FileNotFoundError):
                self.system.rm_file(path)

    def where(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _at(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def _lines(self, book: str) -> list[str]:
        self.system.invalidate_cache()  # of listings
        return sorted(self.system.find(self._at(f"{book}{LINES}")))

    def _gather(self, book: str) -> None:
        """Lines into their book, and only then away with them. Killed in between, they are twice there, which is once."""
        lines = self._lines(book)
        if lines:
            known = self.system.cat_file(self._at(book)) if self.system.exists(self._at(book)) else b""
            written = self.system.cat(lines)  # at once, where the store can
            self.write(book, known + b"".join(written[path] for path in lines))
            with self._telling(book):
                for path in lines:
                    self.system.rm_file(path)
        self._counts[book] = 0

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            where = self.where(name)
            raise OutputError(f"{where} cannot be written ({error}); the same command goes on when it can") from error


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(told: Any) -> bytes:
    return (json.dumps(told, ensure_ascii=False, default=str) + "\n").encode("utf-8", "replace")
