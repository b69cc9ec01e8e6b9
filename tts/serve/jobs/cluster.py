"""A batch on a Ray cluster: the engine behind `mynah batch --engine ray`.

                 ┌─► actor: Speaker ─┐
numbers of jobs ─┼─► actor: Speaker ─┼─► outcomes, in any order, to the one process that keeps the books
                 └─► actor: Speaker ─┘

Ray Data does the rest: it spreads the actors over the nodes, gives each the next job when it is done with one, holds jobs back
while outcomes wait to be written down, and starts an actor anew that has died, with its job.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from tts import errors
from tts.errors import MissingPackageError, MynahError
from tts.serve.jobs.manifests import Job
from tts.serve.jobs.workers import DEATHS, Outcome, Work

if TYPE_CHECKING:
    import pyarrow

BLOCKS = 4096  # into which the jobs are cut at the most: a block is what Ray moves, and what is done again where an actor dies
RESTARTS = 5  # of an actor, before Ray goes on without it
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # nothing is sent home; what matters is raised


class Cluster:
    """Actors of a Ray cluster. Every node needs this package, the system, and the recordings: by the same paths, or URLs.

    A job over which actors die in DEATHS rounds is a failure, and the others go on.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        """address: of the cluster's head, "host:6379", or "auto"; None: the one this process or $RAY_ADDRESS is connected to,
        or else one on this machine for as long as the batch lasts. workers: actors; None: as many as the cluster has room for.
        """
        self.address, self.workers = address, workers

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """As `Engine.run`. Raises MissingPackageError; MynahError: there is no cluster, no room in it, or it gives up."""
        with _connected(self.address):
            for _ in range(DEATHS):  # Ray tries again by itself, but counts an actor that is not back yet as another death
                done = set()
                for outcome in self._round(work, jobs) if jobs else ():
                    done.add(outcome.id)
                    yield outcome
                jobs = [job for job in jobs if job.id not in done]
        for job in jobs:
            yield Outcome.failed(job, "WorkerDied", f"workers ended while they spoke it, in {DEATHS} rounds")

    def _round(self, work: Work, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """The outcomes of all jobs but those over which actors die."""
        import ray
        from ray.data import ActorPoolStrategy

        # 1. what an actor takes, and how many of them there is room for
        kind, share = ("GPU", 1) if work.device.startswith("cuda") else ("CPU", work.threads)
        has = ray.cluster_resources().get(kind, 0)
        if has < share:
            raise MynahError(f"a worker takes {share} {kind}, and the cluster has {has:g}")
        workers = min(self.workers if self.workers is not None else int(has // share), len(jobs))
        pool = ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1)
        # 2. the plan. Numbers keep their order, the longest first; the jobs themselves travel with the actors, once
        numbers = ray.data.from_items(list(range(len(jobs))), override_num_blocks=min(len(jobs), BLOCKS))
        numbers.context.enable_progress_bars = False
        numbers.context.max_errored_blocks = -1  # a block whose actors die is left out, and the others go on
        with warnings.catch_warnings(action="ignore"):  # the two limits cannot be said in another way, as of Ray 2.60
            outcomes = numbers.map_batches(
                _Actor,
                batch_size=None,
                batch_format="pyarrow",
                compute=pool,
                fn_constructor_args=(work, list(jobs)),
                num_cpus=share if kind == "CPU" else None,
                num_gpus=share if kind == "GPU" else None,
                max_restarts=RESTARTS,
                max_task_retries=DEATHS - 1,
            )
        # 3. what comes back
        try:
            blocks: Any = outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            for block in blocks:
                for row in block.to_pylist():
                    if row["broken"]:
                        raise getattr(errors, row["broken"], MynahError)(row["told"])
                    told = json.loads(row["told"])
                    yield Outcome(told["id"], told, row["sound"])
        except ray.exceptions.RayError as error:
            raise MynahError(f"the cluster gave up ({_last_line(error)}); the same command goes on where it was") from error


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__


class _Actor:
    """What Ray Data runs in each of its actors: numbers of jobs to rows of told (JSON), sound, and what is broken, if so."""

    def __init__(self, work: Work, jobs: Sequence[Job]) -> None:
        torch.set_num_threads(work.threads)
        self.jobs = jobs
        self.broken: MynahError | None = None
        try:
            self.speak = work.open(0)  # of the devices, Ray shows each actor its own alone
        except MynahError as error:  # raised here, it would be Ray's error; it is the batch's
            self.broken = error

    def __call__(self, batch: pyarrow.Table) -> Iterator[pyarrow.Table]:
        for number in batch["item"].to_pylist():
            if self.broken is not None:
                yield _row(str(self.broken), None, type(self.broken).__name__)
                continue
            outcome = self.speak(self.jobs[number])
            yield _row(json.dumps(dict(outcome.told), ensure_ascii=True, default=str), outcome.sound, "")


def _row(told: str, sound: bytes | None, broken: str) -> pyarrow.Table:
    import pyarrow

    fields = {"told": pyarrow.string(), "sound": pyarrow.large_binary(), "broken": pyarrow.string()}
    return pyarrow.table({"told": [told], "sound": [sound], "broken": [broken]}, schema=pyarrow.schema(fields.items()))


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Ray, connected to a cluster; disconnected in the end, unless it was connected before. Raises MynahError."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError(f"--engine ray needs Ray ({error}): pip install 'mynah-tts[ray]'") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        try:
            _knock(address)
            ray.init(address, include_dashboard=None if address else False, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            where, reason = address or "this machine", str(error).partition("\n")[0]
            raise MynahError(f"no Ray cluster answers at {where} ({reason}); give --address HOST:PORT") from error
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
