"""Cards of the models."""

from typing import Any

from stages.core import params
from stages.core.reporting.findings.base import Found


class Labels(Found):
    dataset: str
    classes: list[str]
    image_size: int


class Model(Found):
    """model.json without its widths; the weights are not read."""

    architecture: dict[str, Any]
    facts: Labels
    quantization: params.Quantization | None
    parents: dict[str, str]
    origin: dict[str, str]
    weights_sha256: str
