"""What docs/batch.md promises, tried: `python benchmarks/batch.py kill`, `pace me.wav` or `cluster` (which wants Ray)."""

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Batches that are killed, compared with a loop of `mynah say`, and shared by a cluster.", no_args_is_help=True
)
WORDS = ("river", "window", "garden", "winter", "paper", "morning", "silver", "letter", "music", "island")
PLACES = ("over there", "by the door", "in the north", "at home", "on the hill")
Items = Annotated[int, typer.Option(min=20)]
System = Annotated[str, typer.Option(help="A system, or the folder of a checkpoint.")]


def write_manifest(folder: Path, items: int) -> Path:
    """Short sentences, each another one."""
    path = folder / "lines.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for i in range(items):
            text = f"The {WORDS[i % 10]} and the {WORDS[(i // 10 + i + 1) % 10]} {PLACES[i // 7 % 5]}, {i}."
            file.write(json.dumps({"id": f"{i:03}", "text": text}) + "\n")
    return path


def mynah(*words: object) -> list[str]:
    return [sys.executable, "-m", "tts.cli", *map(str, words)]


def sounds(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.wav"))}


def finished(out: Path) -> dict[str, int]:
    """When each sound was written that is whole, by its line in the books."""
    book = out / "results.jsonl"
    lines = [line for line in book.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if book.exists() else []
    told = {line["file"]: line["sha256"] for line in map(json.loads, lines)}
    there = sounds(out)
    whole = [name for name, digest in told.items() if hashlib.sha256(there.get(name, b"")).hexdigest() == digest]
    return {name: (out / name).stat().st_mtime_ns for name in whole}


def tell(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@app.command()
def kill(items: Items = 200, times: int = 10, workers: int = 2, seed: int = 0, system: System = "base-en") -> None:
    """SIGKILL to all processes of a batch, at random moments, again and again; then what an undisturbed one says, too."""
    dice = random.Random(seed)
    with folder() as here:
        manifest, out = write_manifest(here, items), here / "killed"
        options = ("--workers", workers, "--system", system)
        command = mynah("batch", manifest, "--out", out, *options)
        most = items // (times + 1)  # further sounds that a run may make: so the last one has something left to do
        before: dict[str, int] = {}
        remade, moments = 0, []
        for _ in range(times):
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
            wanted = len(before) + dice.randrange(most + 1)
            while len(list(out.glob("*.wav"))) < wanted and process.poll() is None:
                time.sleep(0.002)
            time.sleep(dice.random() * 2)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it had ended by itself"
            after = finished(out)
            remade += sum(after.get(name) != when for name, when in before.items())
            before = after
            moments.append(len(after))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = finished(out)
        remade += sum(after.get(name) != when for name, when in before.items())
        subprocess.run(mynah("batch", manifest, "--out", here / "whole", *options), check=True, stdout=subprocess.DEVNULL)
        whole, again = sounds(here / "whole"), sounds(out)
        lines = (out / "results.jsonl").read_bytes().splitlines()
        tell(
            {
                "items": items,
                "killed after": moments,
                "right": sum(again.get(name) == sound for name, sound in whole.items()),
                "lost": len(whole.keys() - again.keys()),
                "finished and done again": remade,
                "partial": len(again) - len(after) + len(list(out.glob(".*.part"))),
                "lines": len(lines),
                "failed": (out / "errors.jsonl").exists(),
            }
        )


@app.command()
def pace(
    prompt: Path,
    items: Items = 100,
    workers: int = 2,
    alone: Annotated[int, typer.Option(help="Items that `mynah say` says, one after another.")] = 10,
    system: System = "base-en",
) -> None:
    """A batch, start-up included, beside a loop of `mynah say`; all in the voice of one recording."""
    with folder() as here:
        manifest = write_manifest(here, items)
        texts = [json.loads(line)["text"] for line in manifest.read_text(encoding="utf-8").splitlines()]
        options = ("--prompt", prompt, "--system", system)
        batch = run([mynah("batch", manifest, "--out", here / "out", "--workers", workers, *options)])
        chosen = texts[:: max(1, items // alone)][:alone]
        said = run([mynah("say", text, "--out", here / "one.wav", *options) for text in chosen])
        of = {"wall": 0, "CPU": 1}
        seconds = {f"{name} seconds an item": {"batch": batch[i] / items, "say": said[i] / alone} for name, i in of.items()}
        times = {f"times, by {name}": one["say"] / one["batch"] for name, one in zip(of, seconds.values(), strict=True)}
        tell({"items": items, "workers": workers, "items of say": alone, **seconds, **times})


def run(commands: list[list[str]]) -> tuple[float, float]:
    """Seconds that commands take, one after another: on the clock, and of all processors, which a busy machine changes less."""

    def spent() -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), used.ru_utime + used.ru_stime

    before = spent()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = spent()
    return after[0] - before[0], after[1] - before[1]


@app.command()
def cluster(items: Items = 40, nodes: int = 2, system: System = "base-en") -> None:
    """Ray on nodes of two cores each (in name), one actor of which is killed, beside one process."""
    from ray.cluster_utils import Cluster as Local

    from tts.serve.batch import Tally, run_batch
    from tts.serve.jobs.cluster import Cluster
    from tts.serve.jobs.workers import Here

    killed: list[int] = []

    def progress(tally: Tally) -> None:
        if tally.spoken >= items // 4 and not killed:
            import psutil  # which Ray brings, and shows once it is imported

            ours = psutil.Process().children(recursive=True)
            actor = next(one for one in ours if "ray::MapWorker" in "".join(one.cmdline()))
            killed.append(actor.pid)
            actor.kill()

    with folder() as here:
        manifest = write_manifest(here, items)
        run_batch(manifest, here / "one", system=system, engine=Here())
        local = Local()
        for _ in range(nodes):
            local.add_node(num_cpus=2, include_dashboard=False)
        tally = run_batch(manifest, here / "ray", system=system, engine=Cluster(local.address), progress=progress)
        local.shutdown()
        one, many = sounds(here / "one"), sounds(here / "ray")
        same = sum(many.get(name) == sound for name, sound in one.items())
        tell({"items": items, "nodes": nodes, "actors killed": len(killed), "same files": same, "failed": tally.failed})


if __name__ == "__main__":
    app()
