"""Files for other runtimes than the shipped file's, and how far they may be from their network."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from stages.core.params.base import Fraction, ProperFraction, Settings

TargetName = Literal[
    "onnx_float32",
    "onnx_packed",
    "onnx_float16",
    "ort_float32",
    "ort_int8",
    "torch_float32",
    "litert_float32",
    "litert_float16",
    "litert_dynamic",
    "litert_int8",
    "executorch_float32",
    "executorch_int8",
    "openvino_float32",
    "openvino_float16",
    "openvino_int8",
    "ncnn_float32",
    "ncnn_float16",
]


def _all(targets: Any) -> Any:
    return list(get_args(TargetName)) if targets == "all" else targets


class Tolerance(Settings):
    min_agreement: Fraction
    max_accuracy_drop: Fraction


class Convert(Settings):
    """What `floating` targets and those of fewer bits, `integer`, may lose on val against their network. A target whose
    converter is `absent` is left out and named, or stops the stage.
    """

    targets: Annotated[tuple[TargetName, ...], Field(strict=False), BeforeValidator(_all)]
    absent: Literal["skip", "fail"]
    floating: Tolerance
    integer: Tolerance
    confidence: ProperFraction

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {list(self.targets)}: each once")
        return self
