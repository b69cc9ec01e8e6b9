"""The embedded weights: systems that speak without a download, each a checkpoint folder in here."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from tts.errors import CheckpointError, nearest


def embedded() -> list[str]:
    """Names of the systems that come with the package."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.yaml"))


def find(name: str | PathLike[str]) -> Path:
    """The folder of a system: an embedded one by its name, or any by its path. Raises CheckpointError."""
    names = embedded()
    if name in names:
        return Path(__file__).parent / name
    if not Path(name).is_dir():
        known = f"the package brings {', '.join(names)}" if names else "the package brings none"
        raise CheckpointError(
            f"there is no system {str(name)!r}{nearest(str(name), names)}; {known}, or give the folder of a checkpoint"
        )
    return Path(name)
