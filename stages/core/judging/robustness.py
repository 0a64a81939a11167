"""How much of the accuracy is left on pictures that were spoilt a little, and then more."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.core import batches, evaluation, params
from stages.core.batches import Pictures
from stages.core.judging.corruptions import CORRUPTIONS, UNTOUCHED, Corruption
from stages.core.judging.counted import share
from stages.core.running import progress


def rows(
    networks: Mapping[str, nn.Module],
    untouched: Mapping[str, np.ndarray],
    pictures: Pictures,
    settings: params.Evaluate,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """`untouched` tells which pictures are answered rightly as they are: severity 0."""
    for kind, amounts in settings.robustness.measured().items():
        progress.note(f"{kind} at {', '.join(f'{one:g}' for one in amounts)}: {len(pictures):,} pictures each")
        whole = Counter({name: int(right.sum()) for name, right in untouched.items()})
        spoilt = [count(networks, pictures, CORRUPTIONS[kind], amount, seed) for amount in amounts]
        found = zip((UNTOUCHED[kind], *amounts), (whole, *spoilt), strict=True)
        for severity, (amount, right) in enumerate(found):
            for name in networks:
                yield {
                    "network": name,
                    "kind": kind,
                    "severity": severity,
                    "amount": amount,
                    "pictures": len(pictures),
                    **share("accuracy", right[name], len(pictures), settings.confidence),
                }


def count(
    networks: Mapping[str, nn.Module], pictures: Pictures, corrupt: Corruption, amount: float, seed: int
) -> Counter[str]:
    """Right answers of each network; pictures are spoilt once for all of them, a batch at a time."""
    right: Counter[str] = Counter()
    with ExitStack() as modes, torch.no_grad():
        for network in networks.values():
            modes.enter_context(evaluation.mode(network))
        for numbers, raw, labels in _raw(pictures):
            seen = pictures.normalise(corrupt(raw, amount, numbers, seed))
            for name, network in networks.items():
                right[name] += int((network(seen).argmax(dim=1) == labels).sum())
    return right


def means(found: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Of one network: for each kind, its mean accuracy over the severities."""
    own = [row for row in found if row["network"] == name and row["severity"] > 0]
    kinds = dict.fromkeys(row["kind"] for row in own)
    return {kind: fmean(row["accuracy"] for row in own if row["kind"] == kind) for kind in kinds}


def _raw(pictures: Pictures) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Numbers, uint8 pictures and labels, in the batches that the evaluator sees."""
    parts = batches.parts_in_order(pictures)
    fetched = batches.fetched(pictures, [part.to(pictures.images.device) for part in parts])
    for numbers, raw in zip(parts, fetched, strict=True):
        yield numbers, raw.permute(0, 3, 1, 2).contiguous(), pictures.labels[numbers.to(pictures.device)]
