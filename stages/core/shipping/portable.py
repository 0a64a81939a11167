"""Whether a file of 8 bits answers alike on processors that add pairs of products in 16 bits, and what makes it so.

Without VNNI, x86 multiplies uint8 by int8 with vpmaddubsw: 255 a + 255 b saturates where a + b is more than 128. Which
weights become neighbours is up to the kernel, so that any two of a channel are taken for a pair.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.core.shipping import running

PAIR = 128
REDUCED = PAIR // 2


def saturates(path: Path) -> int:
    """In how many of its int8 weights some pair of a channel is too large."""
    codes = [rows for rows in running.weights(running.folded(path)).values() if rows.dtype == np.int8]
    return sum(bool(too_large(torch.tensor(rows)).any()) for rows in codes)


def too_large(codes: Tensor) -> Tensor:
    """For each channel. Weights of unlike sign take from each other: the worst pair has one sign."""
    rows = codes.reshape(len(codes), -1).int()
    pairs = [(sign * rows).clamp(min=0).topk(min(2, rows.shape[1])).values.sum(dim=1) for sign in (1, -1)]
    return torch.maximum(*pairs) > PAIR


def narrow(codes: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest codes within the reduced range, for channels that need it, or for all where they share a scale."""
    needed = too_large(codes)
    if scale.numel() == 1:
        needed = needed.any(dim=0, keepdim=True)
    rows = codes.reshape(scale.numel(), -1).float()
    wider = torch.where(needed, rows.abs().amax(dim=1) / REDUCED, 1.0)
    reduced = (rows / wider[:, None]).round().to(codes.dtype)
    return reduced.reshape(codes.shape), scale * wider.reshape(scale.shape)
