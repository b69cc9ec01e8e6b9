"""On a GPU: kernels beside the bytes they move, networks beside what the device can do, throughput by batch size.

Times are those of CUDA events, after a warm-up; what the product replays from a captured graph is captured here, too. The
floors are of this device as measured in the same minute: bytes by the rate of a large copy, products by that of a large one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import Goal, Pace, Row, Run, interleave
from networks import f5, f5_of_ours, ours_forward
from samplers import EAGER, POLICY, Eager
from speaking import generating, synthesizer
from torch import Tensor

from tts.decoding import captured
from tts.decoding.autoregressive import Task
from tts.decoding.scores import Scores
from tts.sampling import fused, paths, reference
from tts.sampling import steps as plain
from tts.sampling.policy import Policy
from tts.sampling.steps import Steps

FLOOR = "floor"
HUGE = {"codebooks": 4, "size": 2048, "dim": 1024, "depth": 24, "heads": 16, "ff_mult": 4.0, "code_dim": None, "voice": False}
SEEN = 512  # positions that a step looks at
LONGEST = 1000  # steps


@dataclass(frozen=True)
class Device:
    """bandwidth: bytes a second, read and written. rate: of a product in bf16, operations a second."""

    name: str
    bandwidth: float
    rate: float
    pace: Pace

    def row(
        self,
        what: str,
        unit: str,
        works: dict[str, Callable[[], Any]],
        floor: float | None = None,
        goal: Goal | None = None,
        each: int = 1,
    ) -> Row:
        """works: of each contender, ours first, so many steps each. floor: seconds."""
        scale = {"µs": 1e6, "ms": 1e3}[unit] / each
        spent = interleave({name: timed(work) for name, work in works.items()}, self.pace, scale)
        if floor is not None:
            spent[FLOOR] = [floor * scale]
        return Row(what, unit, spent, goal)


def gpu(pace: Pace = Pace(7, 0.05, 10.0)) -> list[Row]:
    """Everything below, or where there is no such device a row that says so."""
    if not torch.cuda.is_available():
        return [Row("kernels, language model in bf16, F5-size transformer, throughput by batch", note="no CUDA device")]
    with torch.inference_mode():
        device = look("cuda", pace)
        return [*about(device), *kernels(device), *model(device), *transformer(device), *batches(device)]


def look(name: str, pace: Pace, size: int = 1 << 30, side: int = 8192) -> Device:
    """Measure what the device can do: a copy of `size` bytes, a product of two matrices of `side`."""
    source = torch.empty(size, dtype=torch.uint8, device=name)
    target, a = torch.empty_like(source), torch.randn(side, side, device=name, dtype=torch.bfloat16)
    runs = {"copy": timed(lambda: target.copy_(source)), "product": timed(lambda: a @ a)}
    spent = interleave(runs, pace)
    return Device(name, 2 * size / min(spent["copy"]), 2 * side**3 / min(spent["product"]), pace)


def about(device: Device) -> list[Row]:
    told = f"{torch.cuda.get_device_name()}: copies {device.bandwidth / 1e9:.0f} GB/s, bf16 {device.rate / 1e12:.0f} TFLOP/s"
    return [Row(f"{told}; a page of 1 MB copied", "µs", {"ours": [1e12 / device.bandwidth]})]


# ------------------------------------------------------------------------------------------------------- kernels


def kernels(device: Device, K: int = 8, V: int = 1024, T: int = 1000) -> list[Row]:
    """Each inside a captured graph, in bf16; the floor is what it must read and write."""
    d, two = device.name, 2
    logits = torch.randn(two, K, V, device=d).bfloat16() * 3
    table = torch.randn(K * (V + 1), 1024, device=d).bfloat16()
    eager, said = Eager(POLICY, V), torch.randint(0, V, (1, K, POLICY.repetition_window), device=d)
    step = sampling(logits, table, POLICY, K, V)
    moved = logits.numel() * 2 + two * K * 1024 * 2
    works = {"ours": graphed(step), f"{EAGER}, draw alone": lambda: eager.draw(logits.float(), said)}
    rows = [device.row(f"two launches of a step, K = {K}, V = {V}", "µs", works, moved / device.bandwidth, Goal(15.0))]
    cells = torch.randn(1, T, V, device=d).bfloat16()
    rows.append(
        device.row(
            f"a masked pass, T = {T}, V = {V}",
            "µs",
            {"ours": graphed(masking(cells))},
            cells.numel() * 2 / device.bandwidth,
            Goal(25.0),
        )
    )
    x, v = torch.randn(16, 1000, 100, device=d), torch.randn(32, 1000, 100, device=d)
    euler = {
        "ours": graphed(lambda: fused.flow_step(x, v, 0.1, 2.0)),
        EAGER: graphed(lambda: reference.flow_step(x, v, 0.1, 2.0)),
    }
    rows.append(
        device.row(
            "a step of the solver, 16 x 1000 x 100, guided", "µs", euler, (2 * x.numel() + v.numel()) * 4 / device.bandwidth
        )
    )
    return rows


def sampling(logits: Tensor, table: Tensor, policy: Policy, K: int, V: int) -> Callable[[], Any]:
    """Both launches, again and again: a loop that has run out of columns writes into its last."""
    module: Any = fused if paths.available(logits.device) else plain
    state = started(1, K, V, logits.device, policy.repetition_window)

    def work() -> None:
        module.sample_step(logits, state, policy)
        module.embed_step(table, state, 2)

    return work


def started(B: int, K: int, V: int, device: Any, window: int = 0) -> Steps:
    seeds = torch.arange(B, device=device)
    return Steps.start(seeds, torch.full((B,), LONGEST, device=device), tuple(range(K)), V, window)


def masking(cells: Tensor, policy: Policy = Policy(top_k=64)) -> Callable[[], Any]:
    """All cells are drawn and ranked, and all of them stay masked, so that the next pass finds what this one found."""
    (_, T, V), device = cells.shape, cells.device
    codes, masked = torch.full((1, T), V, device=device), torch.ones(1, T, dtype=torch.bool, device=device)
    stay, seeds, step = (torch.tensor([n], device=device) for n in (T, 1, 0))
    one = torch.ones(1, device=device)
    told = {"left": one, "temperature": one, "noise": 1.0}
    return lambda: fused.mask_step(cells, codes, masked, stay, seeds, 0, step, policy, **told)


# ------------------------------------------------------------------------------------------------------ networks


def model(device: Device, sizes: dict[str, Any] = HUGE, batches: tuple[int, ...] = (1, 8, 32, 128)) -> list[Row]:
    """A language model of codes of 300 M parameters in bf16, unguided; a step is one captured graph, the draw included."""
    rows = []
    network = language_model(device.name, sizes)
    parameters = sum(p.numel() for part in (network.trunk, network.head) for p in part.parameters())
    for B in batches:
        cache = 2 * network.trunk.config.depth * B * SEEN * network.trunk.config.dim
        floor = 2 * (parameters + cache) / device.bandwidth
        what = f"step of a language model of {parameters / 1e6:.0f} M in bf16, {SEEN} positions, batch {B}"
        goal = Goal(0.4, FLOOR) if B == 1 else None  # 40 % of the bandwidth
        rows.append(device.row(what, "ms", {"ours": graphed(stepping(network, B, SEEN))}, floor, goal))
    what = f"the same, batch 1, by the decoder's own loop from its start to the end of {SEEN} steps"
    return [*rows, device.row(what, "ms", {"ours": looping(network, SEEN)}, each=SEEN)]


def language_model(device: str, sizes: dict[str, Any]) -> Any:
    from tts.backends.ar.config import ARConfig
    from tts.backends.ar.network import ARNetwork

    return ARNetwork(ARConfig(**sizes)).eval().to(device, torch.bfloat16)


def stepping(network: Any, B: int, seen: int) -> Callable[[], Any]:
    """One step: trunk, heads, codes, and the vectors that the next one reads. It writes over the last position."""
    from tts.nn.stepping import Stepper

    table, config = network.codes.table.weight, network.config
    module: Any = fused if paths.available(table.device) else plain
    cache = network.trunk.cache(B, seen)
    stepper, policy = Stepper(network.trunk, cache), Policy(top_k=250)
    state = started(B, config.codebooks, config.size, table.device)
    x, where = (
        torch.zeros(B, config.dim, device=table.device, dtype=table.dtype),
        torch.full((B,), seen - 1, device=table.device),
    )

    def work() -> None:
        logits = network.head(stepper.at(x, where, seen))
        module.sample_step(logits, state, policy)
        x.copy_(module.embed_step(table, state))

    return work


def looping(network: Any, seen: int) -> Callable[[], Any]:
    """A whole item of the decoder's loop, which captures its own graph: one that fills so many positions."""
    table, config = network.codes.table.weight, network.config
    cache, delays = network.trunk.cache(1, seen), tuple(range(config.codebooks))
    zeros = torch.zeros(1, config.codebooks, config.size, device=table.device)
    first = torch.zeros(1, dtype=torch.int64, device=table.device)
    task = Task(first + 1, first + seen - max(delays), Policy(top_k=250), delays)
    return lambda: list(captured.run(network, Scores(zeros, zeros), cache, task))


def transformer(device: Device, depth: int = 22, frames: int = 940, heads: int = 16) -> list[Row]:
    """F5-TTS v1 Base in bf16, a forward of one row; ours from a graph, theirs as it is. The floor is its operations."""
    from torch.utils.flop_counter import FlopCounterMode

    theirs = f5(depth, heads)
    if theirs is None:
        return []
    ours, *given = f5_of_ours(theirs, depth, heads, frames)
    x, cond, ids, t = (each.to(device.name) for each in given)
    forward = ours_forward(ours.to(device.name), x, cond, ids, t, narrow=True)
    theirs, x, cond, t = (each.to(device.name, torch.bfloat16) for each in (theirs, x, cond, t))
    with FlopCounterMode(display=False) as counter:
        forward()
    works = {"ours": graphed(forward), "f5-tts": lambda: theirs(x, cond, ids, t, cache=True)}
    what = f"F5-TTS v1 Base's transformer in bf16, {depth} blocks, T = {frames}"
    return [device.row(what, "ms", works, counter.get_total_flops() / device.rate)]


def batches(device: Device, system: str = "base-en", sizes: tuple[int, ...] = (1, 4, 16, 64), frames: int = 500) -> list[Row]:
    """`Backend.generate`, milliseconds an item, by the path that the device chooses and by the plain one."""
    rows = []
    for name, backend in synthesizer(system, device.name).parts.backends.items():
        speak = generating(backend, device.name)
        for B in sizes:
            work = partial(speak, frames, B)
            runs = {"ours": timed(work), "the plain path": timed(partial(along, "plain", work))}
            spent = interleave(runs, Pace(3, 0.0, 0.0), 1e3 / B)
            rows.append(Row(f"{system}, {name}, {frames} frames, batch {B}", "ms an item", spent, point=(name, B)))
    return rows


def along(path: str, work: Callable[[], Any]) -> Any:
    """work() by one of the paths of tts/sampling/paths.py."""
    before = os.environ.get(paths.VARIABLE, "")
    os.environ[paths.VARIABLE] = path
    try:
        return work()
    finally:
        os.environ[paths.VARIABLE] = before


# ---------------------------------------------------------------------------------------------------------- time


def timed(work: Callable[[], Any]) -> Run:
    """By events of the device, from the first call to the end of the last."""

    def run(n: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(n):
            work()
        end.record()
        torch.cuda.synchronize()
        seconds: float = begin.elapsed_time(end) / 1e3
        return seconds / n

    return run


def graphed(work: Callable[[], Any]) -> Callable[[], Any]:
    """The same work as one captured graph, which is replayed."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # kernels are compiled, and tables made, before anything is captured
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    kept = (graph, work)  # what the graph reads and writes belongs to the work
    return lambda: kept[0].replay()
