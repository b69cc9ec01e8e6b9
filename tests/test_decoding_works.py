"""What is captured asks for no number and makes no tensor on the host: seen without a GPU, on tensors that pretend to be there.

A fake tensor has a shape, a type and a device, and no numbers: to ask it for one is an error, and so is to mix devices.
"""

from dataclasses import replace

import pytest
import torch
from test_ar_model import CONFIGS as AR
from test_ar_model import NAMES, ARBackend
from test_flow import CONFIGS as FLOW
from test_flow import FlowBackend
from test_masked_model import CONFIGS as MASKED
from test_masked_model import MaskedBackend
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tts.backends.flow.dit import Modulation
from tts.backends.masked.network import Given, Text
from tts.decoding.constraints import Loops
from tts.nn.kv_cache import Memory
from tts.sampling.steps import Steps


class OnDevice(TorchDispatchMode):
    """Fails where a tensor is made on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        assert not isinstance(out, Tensor) or out.device.type == "cuda", func
        return out


@pytest.fixture(autouse=True)
def fake():
    with torch.no_grad(), FakeTensorMode():
        yield


def some(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="cuda")


def codes(*shape: int) -> Tensor:
    return some(*shape, dtype=torch.int64)


def known(*shape: int) -> Tensor:
    return some(*shape, dtype=torch.bool)


def moved(model: nn.Module) -> nn.Module:
    """As `model.cuda()` would, on a machine that has none."""
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(p, device="cuda"), requires_grad=False))
        for name, b in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(b, device="cuda"))
    return model.eval()


@pytest.mark.parametrize("config", AR, ids=NAMES)
def test_a_step_of_autoregression(config):
    network = moved(ARBackend(config)).network
    memory = network.trunk.remember(some(2, 5, 16)) if config.text == "cross" else None
    cache = network.trunk.cache(2, 30, memory)
    cache.lengths = [5, 7]
    stepping = network.stepping(cache)
    with OnDevice():
        said = stepping.step(some(2, 16), stepping.where)
        if network.depth is not None:
            frame = network.depth.begin(said)
            for k in range(3):
                assert network.depth.book(k, codes(2) if k else None, frame).shape == (2, 7 + config.end)


def test_what_the_loop_itself_does_after_a_step():
    state = Steps(7, codes(2, 3, 40), 9, codes(3), 0, *(codes(2) for _ in range(5)))
    loops = Loops()
    with OnDevice():
        last = state.before(loops.longest + 1)
        _, looped = loops.follow(codes(2, loops.longest), last[:, -1], last[:, :-1])
        state.stop(looped)
        assert state.current(1).shape == (2,)


@pytest.mark.parametrize("config", MASKED, ids=["maskgct", "magnet", "prefix", "cross"])
def test_a_pass_of_a_masked_network(config):
    network, R, N, L = moved(MaskedBackend(config)).network, 2, 64, 64
    given = Given(codes(R, 3, 0), known(R, N), voice=some(R, N, 16) if config.voice else None)
    if config.text == "aligned":
        given = replace(given, text=some(R, N, config.text_dim))
    elif config.text == "prefix":
        given = replace(given, prefix=Text(some(R, L, 16), known(R, L)))
    else:
        given = replace(given, memory=Memory((some(R, 2, L, 8),), (some(R, 2, L, 8),), known(R, 1, 1, L)))
    for near in {False, config.reach is not None}:
        with OnDevice():
            assert network.look(codes(R, 3, N), codes(R), some(R), given, False, near).shape == (R, N, 16)


@pytest.mark.parametrize("config", [config for config in FLOW if config.time_experts == 1])
def test_a_velocity_of_a_flow(config):
    dit, R, N = moved(FlowBackend(config)).dit, 2, 64
    with OnDevice():
        modulation = Modulation(some(1, R, 96), some(R, 32), None)
        assert dit(some(R, N, config.width), modulation, some(R, N, 16), known(R, N)).shape == (R, N, config.width)
