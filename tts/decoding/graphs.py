"""Captured graphs: what a GPU is asked to do is written down once and then replayed, without the time that each launch costs.

    bucket of 64     frames  ████████████████████░░░░░░░░░░░░   41, filled up to 64 and the rest masked: lengths of one
                                                                bucket share a graph

Whatever is not a GPU has nothing to capture: there the work itself is called, with the same memory and the same filling up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")
BUCKET = 64  # frames


CAPTURING = Lock()  # a process can write down one graph at a time


def capture(work: Callable[[], T], device: torch.device, pool: Any = None) -> Callable[[], T]:
    """The same work as a graph, on the same memory. It is done once before: that compiles kernels and finds their workspaces.

    The work looks at no number, and makes no tensor of what stands on the host. What it returns is the same memory each time.
    pool: memory for what stands between, shared with other graphs that never run at the same time.
    """
    if device.type != "cuda":
        return work
    with CAPTURING, torch.cuda.device(device):
        aside = _aside(device)
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
            said = work()

    def replay() -> T:
        graph.replay()
        return said

    return replay


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """One for all graphs of a device: only graphs of one stream share memory."""
    return torch.cuda.Stream(device)


class Graphs:
    """Graphs of one function of tensors, one for each set of shapes that it is given; the longest unused is forgotten.

    The function takes tensors, and tuples and dataclasses of them; whatever else stands in there tells graphs apart, too. Its
    weights may change, but not move: who moves them calls `clear`.
    """

    def __init__(self, function: Callable[..., Tensor], most: int = 16) -> None:
        self.function, self.most = function, most
        self.clear()
        self.lock = Lock()  # held from the filling of a graph's memory until what it said is taken

    def clear(self) -> None:
        """Forget all graphs."""
        self.held: OrderedDict[Any, tuple[list[Tensor], Callable[[], Tensor]]] = OrderedDict()
        self.pool: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Graphs, (self.function, self.most)  # a copy has weights of its own, and no graphs yet

    @torch.inference_mode()
    def __call__(self, *given: Any) -> Tensor:
        """What the function says of `given`, in memory of its own."""
        fresh = tensors_in(given)
        key = each(given, lambda x: (x.shape, x.dtype, x.device))
        with self.lock:
            if key not in self.held:
                memory, device = each(given, Tensor.clone), fresh[0].device
                if self.pool is None and device.type == "cuda":
                    self.pool = torch.cuda.graph_pool_handle()
                self.held[key] = tensors_in(memory), capture(lambda: self.function(*memory), device, self.pool)
                if len(self.held) > self.most:
                    self.held.popitem(last=False)
            self.held.move_to_end(key)
            memories, replay = self.held[key]
            for mine, theirs in zip(memories, fresh, strict=True):
                mine.copy_(theirs)
            return replay().clone()


def each(x: Any, act: Callable[[Tensor], Any]) -> Any:
    """x with `act` done to each tensor in it, in tuples and dataclasses, too."""
    if isinstance(x, Tensor):
        return act(x)
    if isinstance(x, tuple):
        return tuple(each(y, act) for y in x)
    if is_dataclass(x) and not isinstance(x, type):
        return replace(x, **{f.name: each(getattr(x, f.name), act) for f in fields(x)})
    return x


def tensors_in(x: Any) -> list[Tensor]:
    """In the order of `each`."""
    found: list[Tensor] = []
    each(x, found.append)
    return found


def fill_up(x: Tensor, dim: int, value: float = 0) -> Tensor:
    """x [..., n, ...] with `value` behind, up to the end of the bucket of n along `dim`."""
    return F.pad(x, (*(0, 0) * (x.dim() - 1 - dim % x.dim()), 0, -x.shape[dim] % BUCKET), value=value)
