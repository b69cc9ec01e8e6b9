"""What somebody installs is whole: the wheel holds every room, imports from anywhere, and speaks without a network."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tts.weights import embedded

ROOT = Path(__file__).parent.parent
ROOMS = {"tts": "tts", "codecs": "tts/codecs", "vocoders": "tts/vocoders", "configs": "tts/configs"}  # folder: in the wheel
KINDS = {".py", ".yaml", ".safetensors", ".md", ".tsv", ".typed"}
WEIGHTS_MB = 64

OFFLINE = """
import socket, sys

def refuse(*_, **__):
    raise OSError("there is no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this working tree, built from a copy so that nothing is left in it."""
    pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel: pip install 'mynah-tts[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "source" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder / "source")
    build = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(folder / "source")]
    subprocess.run([sys.executable, "-m", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel):
    """A folder into which it has been installed."""
    folder = wheel.parent / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, wheel], check=True)
    return folder


def run_outside(program: str, site: Path) -> str:
    """What a program writes that is run outside of the repository, with the installed wheel first on the path."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=site.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_every_room(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for room, place in ROOMS.items():
        for path in (ROOT / room).rglob("*"):
            if path.suffix in KINDS and path.is_file():
                assert f"{place}/{path.relative_to(ROOT / room).as_posix()}" in held, f"{path} is left out"


def test_the_wheel_imports_from_anywhere(site):
    program = "import codecs, tts, tts.codecs, tts.vocoders.istft, tts.configs; codecs.lookup('utf-8'); print(tts.__file__)"
    assert Path(run_outside(program, site).strip()).is_relative_to(site)


def test_the_weights_are_small():
    size = sum(path.stat().st_size for path in (ROOT / "tts" / "weights").rglob("*") if path.is_file())
    assert size <= WEIGHTS_MB * 1e6


@pytest.mark.skipif(not embedded(), reason="no embedded weights")
def test_the_wheel_speaks_without_a_network(site):
    program = OFFLINE + "from tts import synthesize; print(synthesize('The cat sat on the mat.').seconds)"
    assert float(run_outside(program, site)) > 0.5
