"""What a killed training goes on from: everything that the next epoch depends on."""

import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch


@dataclass
class Progress:
    """State after `epoch` epochs. Random numbers need no place here: they follow from seed and epoch."""

    epoch: int
    network: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, torch.Tensor]
    history: list[dict[str, float]]


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
