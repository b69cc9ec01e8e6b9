"""The path is chosen by the device, or by a person; what cannot be is a sentence."""

import pytest
import torch

from tts.errors import SettingsError
from tts.sampling import paths
from tts.sampling.paths import path_for


@pytest.fixture
def triton(monkeypatch):
    """As if it were installed, and as if it were not."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return lambda there: monkeypatch.setattr(paths, "find_spec", lambda name: there or None)


@pytest.mark.parametrize(
    ("device", "there", "path"),
    [("cpu", True, "plain"), ("cuda", True, "graph"), ("cuda:1", True, "graph"), ("cuda", False, "plain")],
)
def test_a_device_has_its_path(device, there, path, triton, monkeypatch):
    triton(there)
    monkeypatch.delenv("MYNAH_PATH", raising=False)
    assert path_for(device) == path_for(torch.device(device)) == path
    assert paths.fused(device) == (path == "graph")


@pytest.mark.parametrize("path", ["plain", "fused", "graph"])
def test_a_person_may_choose_another(path, triton, monkeypatch):
    triton(True)
    monkeypatch.setenv("MYNAH_PATH", path)
    assert path_for("cuda") == path
    assert paths.fused("cuda") == (path != "plain")


def test_on_a_cpu_kernels_run_in_the_interpreter_alone_and_a_graph_does_without(triton, monkeypatch):
    triton(True)
    monkeypatch.setenv("MYNAH_PATH", "graph")
    assert path_for("cpu") == "graph" and not paths.fused("cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert paths.fused("cpu")
    monkeypatch.setenv("MYNAH_PATH", "fused")
    assert path_for("cpu") == "fused" and paths.fused("cpu")


@pytest.mark.parametrize(
    ("path", "device", "there", "says"),
    [
        ("quick", "cpu", True, "MYNAH_PATH must be one of plain, fused, graph, or unset; got 'quick'"),
        ("fused", "cpu", True, "MYNAH_PATH=fused needs Triton and a CUDA device, got cpu"),
        ("graph", "cuda", False, "MYNAH_PATH=graph needs Triton"),
    ],
)
def test_what_cannot_be_is_a_typed_error(path, device, there, says, triton, monkeypatch):
    triton(there)
    monkeypatch.setenv("MYNAH_PATH", path)
    with pytest.raises(SettingsError, match=says):
        path_for(device)
