"""How fast Mynah is, beside its peers, on this machine: `make bench`, or `python benchmarks/bench.py --only sampler,ar`.

Prints one table and writes one JSON, with every repeat in it. Each section can be run alone, and takes the place of what the
file had of it. Where the machine is busy, or repeats differ too much, the figures are there and no conclusion is drawn.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from harness import BUSY, Row, load, table

SECTIONS = {  # name: title, file, function
    "cold": ("From the shell", "speaking", "cold"),
    "speech": ("From a text to its sound", "speaking", "speech"),
    "length": ("A backend by length and batch", "speaking", "length"),
    "sampler": ("Drawing codes, one thread", "samplers", "sampler"),
    "masked": ("A pass of masked decoding after the network, one thread", "samplers", "masked"),
    "ar": ("A codec language model, a step", "networks", "ar"),
    "dit": ("A flow's transformer, a forward", "networks", "dit"),
    "codec": ("A codec", "sounds", "codec"),
    "vocoder": ("Vocoders", "sounds", "vocoder"),
    "gpu": ("On a GPU", "gpu", "gpu"),
}
ONE_THREAD = {"sampler", "masked", "gpu"}  # sections that settle the number of threads themselves
PACKAGES = ("torch", "numpy", "transformers", "encodec", "vocos", "f5-tts", "pocket-tts", "triton")


def main(
    only: Annotated[str | None, typer.Option(help=f"Some of: {','.join(SECTIONS)}.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON.")] = Path("runs/bench.json"),
    threads: Annotated[int, typer.Option(help="Of torch; samplers use one.", min=1)] = 2,
    plot: Annotated[Path | None, typer.Option(help="Draw what the JSON holds to this PNG, too.")] = None,
    read: Annotated[bool, typer.Option("--read", help="Measure nothing; show what the JSON holds.")] = False,
) -> None:
    """Times of Mynah and of its peers: ours first, the least and the median of the repeats of each."""
    names = [] if read else list(SECTIONS) if only is None else only.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise typer.BadParameter(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}", param_hint="--only")
    started, before = time.perf_counter(), load()
    say(f"load average {before:.2f}" + (f", above {BUSY}: no conclusion will be drawn" if before > BUSY else ""))
    found = json.loads(out.read_text("utf-8")) if out.is_file() else {"sections": {}}
    for name in names:
        title, file, function = SECTIONS[name]
        say(f"{time.perf_counter() - started:4.0f} s  {name}: {title}")
        section = getattr(importlib.import_module(file), function)
        rows = section() if name in ONE_THREAD else section(threads_=threads)
        found["sections"][name] = told(title, rows, before, 1 if name in ONE_THREAD else threads)
        found["sections"] = {each: found["sections"][each] for each in SECTIONS if each in found["sections"]}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")  # so what is measured outlives what fails
    say(f"{time.perf_counter() - started:4.0f} s  done, load average {load():.2f}")
    sys.stdout.write(shown(found))
    if plot is not None:
        from plots import draw

        plot.write_bytes(draw(found["sections"]))


def told(title: str, rows: Sequence[Row], before: float, threads: int) -> dict[str, Any]:
    """A section as the JSON has it. before: the load average when the program began, as its own work raises it."""
    machine = {"machine": processor(), "cores": os.cpu_count(), "versions": versions()}
    kept = [row.told(before > BUSY) for row in rows]
    return {"title": title, "load average": before, "threads": threads, **machine, "rows": kept}


def shown(found: dict[str, Any]) -> str:
    """The table, each section under its title with the load average that it was measured at."""
    titled = {f"{each['title']} (load {each['load average']:.1f})": each for each in found["sections"].values()}
    return table(titled)


def processor() -> str:
    """Its name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    from importlib import metadata

    installed = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed.get(name, "absent") for name in PACKAGES}}


def say(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    typer.run(main)
