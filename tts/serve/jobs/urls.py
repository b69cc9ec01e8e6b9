"""Places behind URLs, through fsspec: s3://bucket/lines.csv, memory://…, file:///…, whatever there is a package for."""

from __future__ import annotations

import io
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts.errors import InputError, MissingPackageError, PromptError

if TYPE_CHECKING:
    import fsspec

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")  # fsspec's chains, too: simplecache::s3://…


def is_url(place: Any) -> bool:
    return isinstance(place, str) and URL.match(place) is not None


def opened(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path in it. Raises MissingPackageError, InputError: none is known for it."""
    try:
        import fsspec
        import fsspec.core

        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(f"{url} needs a package that is not installed ({error}): pip install it") from error
    except ValueError as error:
        raise InputError(f"{url} is no place that fsspec knows ({error}); give a path, or s3://BUCKET/FILE") from error


def local(place: str | Path) -> Path | None:
    """The path of what lies on this machine, file:///… included; None: it is elsewhere. Raises as `opened`."""
    if not is_url(place):
        return Path(place)
    system, path = opened(str(place))
    return Path(path) if "file" in system.protocol else None


def read_url(url: str) -> bytes:
    """What lies there. Raises OSError, ValueError; as `opened`."""
    system, path = opened(url)
    return system.cat_file(path)


def beside(file: str, name: str) -> str:
    """The place that is called `name` in a file: a URL or an absolute path as it is, else relative to the file."""
    if is_url(name) or (is_url(file) and name.startswith("/")):
        return name
    if not is_url(file):
        return str(Path(file).parent.resolve() / name)
    scheme, _, rest = file.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(rest), name))}"


class _Named(io.BytesIO):
    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self.name = name


def fetched(prompt: Any) -> Any:
    """A prompt, with open files for its URLs. Raises PromptError; as `opened`."""
    if isinstance(prompt, list):
        return [fetched(one) for one in prompt]
    if not is_url(prompt):
        return prompt
    try:
        return _Named(prompt, read_url(prompt))
    except FileNotFoundError as error:
        raise PromptError(f"{prompt} does not exist; give the URL of a recording") from error
    except OSError as error:
        raise PromptError(f"{prompt} cannot be read ({error}); check the URL and whether you may read it") from error
