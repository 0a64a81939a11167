"""What an interrupted training goes on from: everything that its next step depends on."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor


@dataclass
class Progress:
    """State after `epoch` epochs and `losses` of the next. Random numbers need no place: they follow from the step."""

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    rollbacks: int = 0
    network: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def save(path: Path, progress: Progress) -> None:
    """Not synced to the disk: it must survive the death of the process, not of the machine."""
    partial = path.with_suffix(".partial")
    torch.save(vars(progress), partial)
    os.replace(partial, path)


def load(path: Path) -> Progress | None:
    if not path.exists():
        return None
    try:
        return Progress(**torch.load(path, weights_only=True, map_location="cpu"))
    except (RuntimeError, EOFError, UnpicklingError):  # cut short when the machine went down
        return None
