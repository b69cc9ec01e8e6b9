"""`mynah doctor`: what is here, which paths it would take, and whether it speaks; what is missing is a sentence.

python    3.11.7, torch 2.11.0+cpu …
cpu       2 threads, AVX512, avx512_bf16 avx512_vnni amx_int8
system    base-en 0.4: recognizer 457b740c, …
paths     plain (chosen by the device); sampling: lean (NumPy); ar: fp32 (8 bits with precision auto) …
speech    2.1 s in 0.6 s (RTF 0.29); the recognizer heard every phone
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tts.errors import MynahError

PACKAGES = ("mynah-tts", "torch", "torchaudio", "numpy", "safetensors", "soundfile", "phonemizer", "espeakng-loader")
# What is looked up when it is used: module, what it is for, how to get it.
OPTIONAL = (
    ("gradio", "the page of `mynah demo`", "pip install 'mynah-tts[app]'"),
    ("fastapi", "`mynah serve`", "pip install 'mynah-tts[serve]'"),
    ("lightning_fabric", "`mynah train`", "pip install 'mynah-tts[train]'"),
    ("jiwer", "`mynah eval`", "pip install 'mynah-tts[eval]'"),
)
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
SENTENCE = "All is well, and I can speak."


@dataclass(frozen=True)
class Finding:
    """One line. wrong: something that keeps Mynah from speaking."""

    about: str
    says: str
    wrong: bool = False


def examine(system: str = "base-en", device: str = "cpu") -> Iterator[Finding]:
    """Look at everything, the cheap things first; nothing that is found wrong stops the rest that can do without it."""
    import torch

    yield Finding("python", ", ".join((platform.python_version(), *(f"{name} {_version(name)}" for name in PACKAGES))))
    yield Finding("cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {cpu_features()}")
    yield from _gpus()
    for module, purpose, advice in OPTIONAL:
        if find_spec(module) is None:
            yield Finding("optional", f"{purpose} needs {module}: {advice}")
    yield from _system(system, device)


def cpu_features(info: Path = Path("/proc/cpuinfo")) -> str:
    """Instructions that make small weights fast, as Linux names them."""
    if not info.is_file():
        return f"{platform.machine()}, whose features are not told here"
    lines = info.read_text(encoding="utf-8", errors="ignore").splitlines()
    words = next((line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), [])
    return " ".join(name for name in FEATURES if name in words) or "none of the instructions that small weights like"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ", and this torch is built without CUDA"
        yield Finding("gpu", f"none that can be used{built}; everything runs on the CPU")
        return
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        yield Finding("gpu", f"cuda:{i} {about.name}, {about.total_memory / 2**30:.0f} GiB, sm_{about.major}{about.minor}")
    if find_spec("triton") is None:
        yield Finding("gpu", "fused sampling needs Triton: pip install triton; without it codes are drawn by plain torch")


def _system(system: str, device: str) -> Iterator[Finding]:
    from tts.pipeline import Synthesizer
    from tts.sampling.paths import VARIABLE, fused, path_for

    try:
        speaker = Synthesizer.from_pretrained(system, device, precision="auto")
        fast = speaker.parts.bits
        speaker = Synthesizer.from_pretrained(system, device)
        path = path_for(speaker.parts.device)
    except MynahError as error:
        yield Finding("system", str(error), wrong=True)
        return
    yield Finding("system", speaker.identity)
    chosen = f"{path} ({f'set by {VARIABLE}' if os.environ.get(VARIABLE) else 'chosen by the device'})"
    otherwise = "lean (NumPy)" if speaker.parts.device.type == "cpu" else "plain torch"
    sampler = "Triton kernels" if fused(speaker.parts.device) else otherwise
    weights = [f"{name}: fp32 ({fast[name]} bits with precision auto)" for name in speaker.parts.bits]
    yield Finding("paths", "; ".join((chosen, f"sampling: {sampler}", *weights)))
    for backend in speaker.parts.backends:
        try:
            audio = speaker.synthesize(SENTENCE, backend=backend)
        except MynahError as error:
            yield Finding("speech", f"{backend}: {error}", wrong=True)
            continue
        report = audio.report
        heard = f"missed {' '.join(report.missed)}" if report.missed else "the recognizer heard every phone"
        wrong = not len(audio.samples) or not bool((abs(audio.samples) <= 1).all())  # also false of what is no number
        took = f"{report.seconds:.1f} s in {report.spent_seconds:.1f} s (RTF {report.real_time_factor:.2f})"
        yield Finding("speech", f"{backend}: {took}; {heard}", wrong)


def doctor(
    system: Annotated[
        str, typer.Option(help="A system that comes with the package, or the folder of a checkpoint.")
    ] = "base-en",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Say what is here, which paths are taken, and whether it speaks; exits with 1 where it cannot."""
    wrong = False
    for finding in examine(system, device):
        wrong |= finding.wrong
        typer.echo(f"{finding.about:9} {'WRONG: ' if finding.wrong else ''}{finding.says}")
    if wrong:
        raise typer.Exit(1)
