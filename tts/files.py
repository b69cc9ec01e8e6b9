"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from tts.errors import OutputError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, then move it there, so that nobody ever finds half of it. Raises OutputError."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
        os.replace(part, path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written ({reason}); give a file in a folder you may write to") from error
    finally:
        with suppress(OSError, ValueError):
            part.unlink()
