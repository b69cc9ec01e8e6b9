"""Weight normalisation: a convolution learns the length and the direction of its kernels apart; inference needs neither.

    training    weight = g * v / |v|, torch's parametrization      add_weight_norm, remove_weight_norm: a module
    inference   weight                                             fold_weight_norm: a state dict

Source: Salimans & Kingma 2016, "Weight normalization" (arXiv:1602.07868).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tts.errors import CheckpointError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
# How g and v are named in state dicts: by torch today, and by torch.nn.utils.weight_norm, which public checkpoints are of.
SPELLINGS = ((".parametrizations.weight.original0", ".parametrizations.weight.original1"), (".weight_g", ".weight_v"))


def add_weight_norm(module: nn.Module) -> None:
    """Parametrize every convolution within `module`; what it computes stays. Call it before an optimizer takes parameters."""
    for layer in list(module.modules()):
        if isinstance(layer, CONVOLUTIONS) and not parametrize.is_parametrized(layer, "weight"):
            parametrizations.weight_norm(layer)


def remove_weight_norm(module: nn.Module) -> None:
    """The inverse of `add_weight_norm`: plain weights again; what the module computes stays."""
    for layer in list(module.modules()):
        if isinstance(layer, CONVOLUTIONS) and parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with each g and v, in either spelling, as the weight that they make; all else as it is.

    Raises CheckpointError for one of the two without the other.
    """
    folded = dict(state)
    for g_name, v_name in SPELLINGS:
        for layer in {key.removesuffix(name) for key in state for name in (g_name, v_name) if key.endswith(name)}:
            if layer + g_name not in state or layer + v_name not in state:
                raise CheckpointError(f"the weight of {layer} is normalised, and one of {g_name}, {v_name} is not there")
            g, v = folded.pop(layer + g_name), folded.pop(layer + v_name)
            rest = tuple(d for d in range(v.dim()) if g.shape[d] == 1)  # g has one length for each index of the others
            folded[layer + ".weight"] = v * (g / v.square().sum(rest, keepdim=True).sqrt())
    return folded
