"""Smaller weights for the products of a network on a CPU: bfloat16, eight or four bits, in place of its linear layers.

    a step reads every weight once      fp32  ████████████████        so a step of one or two rows takes as long as that
    and computes little with it         int8  ████                    takes; and a row of hundreds of frames as long as
                                        int4  ██                      the products do, which bfloat16 makes cheaper

Only weights are small (W8A16 and W4A16 in the words of FineQuant, Kim et al. 2023, arXiv:2308.09723), but where a matrix is so
large that products of eight-bit numbers are faster still. Norms, attention and all sums between layers stay float32.
What each kernel takes, and which is the fastest, was measured: docs/speed.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.errors import SettingsError
from tts.nn.scripted import scripted

if TYPE_CHECKING:
    Packed: TypeAlias = Any
else:
    Packed = torch.classes.quantized.LinearPackedParamsBase

LEAST = 1 << 15  # weights of a matrix below which the conversions cost more than is won
LARGE = 1 << 18  # weights from which on products of eight-bit numbers are faster than those of bfloat16
FEW = 16  # rows up to which a product is bound by memory; for more the weights are widened, and read once
GROUPS = (256, 128, 64, 32)  # of four bits: inputs that share a scale, as the kernel takes them
WORSE = 1.1  # "auto" takes the largest group whose error is at most so many times that of the smallest


def quantize(model: nn.Module, bits: int = 8, group: int | str = "auto") -> nn.Module:
    """Replace the linear layers of a model, in place, where that is worth it; returns the model, for inference on a CPU alone.

    Args:
        bits: 16 (bfloat16), 8 or 4.
        group: with four bits, how many inputs of a row share a scale: 32, 64, 128, 256, or "auto": for each matrix the largest
            that serves nearly as well as the smallest, FineQuant's adaptive granularity. With eight bits the whole row does.
    Raises SettingsError: no such bits or group.
    """
    if bits not in (16, 8, 4):
        raise SettingsError(f"bits must be 16, 8 or 4, got {bits!r}")
    if group != "auto" and group not in GROUPS:
        raise SettingsError(f'group must be one of {GROUPS} or "auto", got {group!r}')
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, smaller(child, bits, group))
    return model


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def smaller(layer: nn.Linear, bits: int, group: int | str = "auto") -> nn.Module:
    """The same layer with small weights, or itself where no kernel takes it or nothing is won."""
    rows, width = layer.weight.shape
    if rows * width < LEAST or layer.weight.device.type != "cpu":
        return layer
    if bits == 16:
        return Half(layer)
    fits = rows % 16 == 0 and width % 32 == 0  # other widths the kernels refuse, or read beyond
    if bits == 4 and fits:
        return Four(layer, pick_group(layer.weight, group))
    return Eight(layer) if fits and rows * width < LARGE else EightByEight(layer)


class Small(nn.Module):
    """A linear layer whose weights are small, float32 in and out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = None if layer.bias is None else layer.bias.detach().float()


class Half(Small):
    """Weights in bfloat16, products in bfloat16, sums in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.weight = layer.weight.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return _plus(F.linear(x.bfloat16(), self.weight).float(), self.bias)


class Eight(Small):
    """Weights in eight bits, a scale for each row; inputs in bfloat16."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        w = layer.weight.detach().float()
        self.scales = (w.abs().amax(1) / 127).clamp(min=1e-12).bfloat16()  # rounded first, so that the weights suit them
        self.weight = (w / self.scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) > FEW:
            return F.linear(x, self.weight.float() * self.scales.float()[:, None], self.bias)
        y = torch._weight_int8pack_mm(flat.bfloat16(), self.weight, self.scales).float()
        return _plus(y.view(*x.shape[:-1], self.out_features), self.bias)


class EightByEight(Small):
    """Weights in eight bits, a scale for each row; inputs in eight bits, too, one scale for all that a call is given."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        w = layer.weight.detach().float()
        scales = (w.abs().amax(1).double() / 127).clamp(min=1e-12)
        packed = torch.quantize_per_channel(w, scales, torch.zeros(len(w), dtype=torch.int64), 0, torch.qint8)
        self.packed: Any = torch.ops.quantized.linear_prepack(packed, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return scripted(multiply)(x, self.packed)


def multiply(x: Tensor, packed: Packed) -> Tensor:
    """x [..., in] float by packed weights to [..., out]. Called from Python, the operator takes longer to look at `packed` than
    a small product does."""
    y: Tensor = torch.ops.quantized.linear_dynamic(x.float(), packed, False)
    return y


class Four(Small):
    """Weights in four bits, a scale and a zero for each group of inputs of a row; inputs in bfloat16."""

    def __init__(self, layer: nn.Linear, group: int) -> None:
        super().__init__(layer)
        packed, scales, zeros = pack_four(layer.weight.detach().float(), group)
        self.group = group
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(packed, 1)
        self.scales = torch.stack((scales, zeros), -1).transpose(0, 1).contiguous()  # [groups, rows, 2] bfloat16

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).bfloat16()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.packed, self.group, self.scales).float()
        return _plus(y.view(*x.shape[:-1], self.out_features), self.bias)


def pack_four(w: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """w [rows, width] as (q - 8) * scale + zero: q int32 in 0..15 of that shape, scales and zeros [rows, groups] bfloat16."""
    each = w.unflatten(1, (-1, group))
    low, high = each.amin(-1), each.amax(-1)
    scales = ((high - low) / 15).clamp(min=1e-12).bfloat16()
    zeros = (low + 8 * scales.float()).bfloat16()
    packed = ((each - zeros.float()[..., None]) / scales.float()[..., None] + 8).round().clamp(0, 15)
    return packed.flatten(1).to(torch.int32), scales, zeros


def unpack_four(packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """The inverse of `pack_four`, but for what four bits lose."""
    each = packed.unflatten(1, (scales.shape[1], -1)).float() - 8
    return (each * scales.float()[..., None] + zeros.float()[..., None]).flatten(1)


def pick_group(w: Tensor, group: int | str = "auto") -> int:
    """The group that a matrix [rows, width] gets: the one asked for, or the next smaller that its width is a multiple of."""
    legal = [g for g in GROUPS if w.shape[1] % g == 0 and (group == "auto" or g <= int(group))]
    if group != "auto":
        return legal[0]
    errors = {g: float((unpack_four(*pack_four(w.float(), g)) - w).norm()) for g in legal}
    return next(g for g in legal if errors[g] <= WORSE * errors[legal[-1]])


def _plus(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y.add_(bias)
