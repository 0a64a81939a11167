"""Linear layers whose weights are integers, and whose inputs become integers anew at every call."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.onnx import TensorProtoDataType

from stages.core.quantized import grid

WEIGHTS, INPUTS = grid.of_weights(8), grid.of_activations(8)


class DynamicLinear(nn.Module):
    """As ONNX Runtime computes it: one range for the whole input, all pictures of a batch included. So what is
    answered to a picture depends, a little, on what stands beside it."""

    def __init__(self, layer: nn.Linear, scales: Literal["channel", "tensor"]) -> None:
        super().__init__()
        rows = layer.weight.detach()
        largest = rows.abs().amax(dim=1) if scales == "channel" else rows.abs().amax().view(1)
        scale = (largest / WEIGHTS.highest).clamp(min=grid.TINIEST)
        self.weight: Tensor
        self.weight_scale: Tensor
        self.register_buffer("weight", (rows / scale[:, None]).round().to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.bias = layer.bias

    def forward(self, given: Tensor) -> Tensor:
        product = _Product.apply(given, self.weight, self.weight_scale)
        return product if self.bias is None else product + self.bias  # pyright: ignore[reportOptionalOperand]


class _Product(Function):
    """In the file it is the very operators that ONNX Runtime has one fast kernel for."""

    @staticmethod
    def forward(_: Any, given: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        codes, scale, zero = _rounded(given)
        sums = functional.linear((codes - zero).double(), weight.double())  # exact, as those of integers
        return sums.float() * (scale * weight_scale)

    @staticmethod
    def symbolic(graph: Any, given: Any, weight: Any, weight_scale: Any) -> Any:
        step: Callable[..., Any] = graph.op
        codes, scale, zero = step("DynamicQuantizeLinear", given, outputs=3)
        sums = step("MatMulInteger", codes, step("Transpose", weight, perm_i=[1, 0]), zero)
        sums = step("Cast", sums, to_i=TensorProtoDataType.FLOAT)
        return step("Mul", sums, step("Mul", scale, weight_scale))


def _rounded(given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scale and zero point; the range holds zero."""
    low, high = given.min().clamp(max=0), given.max().clamp(min=0)
    scale = (high - low) / INPUTS.highest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).clamp(INPUTS.lowest, INPUTS.highest).round()
    return ((given / scale).round() + zero).clamp(INPUTS.lowest, INPUTS.highest), scale, zero
