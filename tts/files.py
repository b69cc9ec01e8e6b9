"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path

from tts.errors import OutputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, then move it there, so that nobody ever finds half of it. Raises OutputError."""
    with _beside(path) as part:
        part.write_bytes(data)
        os.replace(part, path)


def check_writable(path: Path) -> None:
    """Raise OutputError now where `write_whole` would raise it after the work. Leaves nothing behind."""
    with _beside(path) as part:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        part.touch()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path beside another for what is yet to be whole; in the end nothing is left there."""
    if not path.name:
        raise OutputError(f"{path} cannot be written (it is a folder); give a file in a folder you may write to")
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written ({reason}); give a file in a folder you may write to") from error
    finally:
        with suppress(OSError, ValueError):
            part.unlink()
