"""Attention loses whole heads, or as many dimensions of each of its heads, those that matter least.

Heads are read in parallel and can go (Michel et al. 2019). A dimension of queries goes with that of keys, one of values
with its column of the projection; which ones may differ from head to head, how many may not. Attention of unknown code
is tried first, as channels are: see graph.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.pruning import attentions, graph, worth
from stages.core.pruning.attentions import Attention, Left
from stages.core.pruning.worth import Group, Read

BATCHES = (1, 2, 5)
TRIED_SHARES = (0.5, 1.0)  # the whole is all but one

Kept = Sequence[Tensor]


def counts(network: nn.Module) -> dict[str, dict[str, int]]:
    return {name: {"heads": one.heads, "dimension": one.dimension} for name, one in attentions.of(network).items()}


def cut(network: nn.Module, names: Sequence[str], share: float | Mapping[str, float], settings: params.Prune) -> None:
    """In place. A share is of all of the ranking's pool, or each attention's own; one head, one dimension stays."""
    importance = worth.IMPORTANCES[settings.importance.name]
    if importance is None or not names:
        return
    kind, found = KINDS[settings.attention], attentions.of(network)
    scores = {name: [importance.score(group) for group in kind.groups(found[name])] for name in names}
    units = {name: importance.comparable(_units(each)) for name, each in scores.items()}
    for name, count in _numbers(units, found, share, settings.ranking).items():
        count = kind.rounded(count, len(units[name]), settings.round_to)
        attentions.narrow(found[name], kind.left(found[name], _most(scores[name], count)))


def prunable(network: nn.Module, image_size: int, seed: int, kind: str) -> list[str]:
    """Those in which cutting is silencing."""
    torch.manual_seed(seed)
    names = [name for name, attention in attentions.of(network).items() if KINDS[kind].size(attention) > 1]
    if not names:
        return []
    network = graph.lively(copy.deepcopy(network).cpu(), image_size)
    pictures = [torch.randn(batch, 3, image_size, image_size) for batch in BATCHES]
    if _harmless(network, names, KINDS[kind], pictures):
        return names
    return [name for name in names if _harmless(network, [name], KINDS[kind], pictures)]


def _harmless(network: nn.Module, names: list[str], kind: "Kind", pictures: list[Tensor]) -> bool:
    return all(_same(network, names, kind, share, pictures) for share in TRIED_SHARES)


@torch.no_grad()
def _same(network: nn.Module, names: list[str], kind: "Kind", share: float, pictures: list[Tensor]) -> bool:
    lefts = {name: _any(attention, kind, share) for name, attention in attentions.of(network).items() if name in names}
    try:
        found = _answers(network, lefts, attentions.narrow, pictures)
    except graph.BROKEN:
        return False
    wanted = _answers(network, lefts, attentions.silence, pictures)
    return all(
        (one - other).abs().max() <= graph.SAME * other.abs().max() for one, other in zip(found, wanted, strict=True)
    )


def _any(attention: Attention, kind: "Kind", share: float) -> Left:
    size = kind.size(attention)
    scores = [worth.random(group) for group in kind.groups(attention)]
    return kind.left(attention, _most(scores, min(round(share * size), size - 1)))


def _answers(
    network: nn.Module, lefts: Mapping[str, Left], change: Callable[[Attention, Left], None], pictures: list[Tensor]
) -> list[Tensor]:
    network = copy.deepcopy(network)
    found = attentions.of(network)
    for name, left in lefts.items():
        change(found[name], left)
    return [network(some) for some in pictures]


def _numbers(
    units: Mapping[str, Tensor], found: Mapping[str, Attention], share: float | Mapping[str, float], ranking: str
) -> dict[str, int]:
    """How many go of each: of those of a pool the least ones, but never an attention's greatest."""
    pool_of = RANKINGS["layerwise"] if isinstance(share, Mapping) else RANKINGS[ranking]
    pools: dict[object, list[str]] = {}
    for name in units:
        pools.setdefault(pool_of(name, found[name]), []).append(name)
    numbers = dict.fromkeys(units, 0)
    for pool in pools.values():
        asked = share[pool[0]] if isinstance(share, Mapping) else share
        total = round(asked * sum(len(units[name]) for name in pool))
        free = [(score, name) for name in pool for score in units[name].sort().values[:-1].tolist()]
        for _, name in sorted(free, key=lambda unit: unit[0])[:total]:
            numbers[name] += 1
    return numbers


RANKINGS: Mapping[str, Callable[[str, Attention], object]] = {
    "global": lambda _name, _attention: "one",
    "isomorphic": lambda _name, attention: attention.shape,
    "layerwise": lambda name, _attention: name,
}


def _rows(attention: Attention, read: Read) -> Tensor:
    """Part x head x dimension x number."""
    qkv = attention.module.qkv
    rows = read(qkv.weight) if qkv.bias is None else torch.cat([read(qkv.weight), read(qkv.bias)[:, None]], 1)
    return rows.unflatten(0, (3, attention.heads, attention.dimension))


def _columns(attention: Attention, read: Read) -> Tensor:
    return read(attention.module.proj.weight).t().unflatten(0, (attention.heads, attention.dimension))


def _head_groups(attention: Attention) -> list[Group]:
    return [
        Group(
            lambda read: _rows(attention, read).transpose(0, 1).flatten(1),
            lambda read: _columns(attention, read).flatten(1),
        )
    ]


def _dimension_groups(attention: Attention) -> list[Group]:
    return [
        Group(
            lambda read: _rows(attention, read)[:2].permute(1, 2, 0, 3).flatten(2),
            lambda read: _columns(attention, read)[..., :0],
        ),
        Group(lambda read: _rows(attention, read)[2], lambda read: _columns(attention, read)),
    ]


def _heads_left(attention: Attention, kept: Kept) -> Left:
    rows = torch.arange(attention.width, device=kept[0].device).unflatten(0, (attention.heads, -1))[kept[0]]
    return Left(rows, rows)


def _dimensions_left(attention: Attention, kept: Kept) -> Left:
    first = torch.arange(0, attention.width, attention.dimension, device=kept[0].device)[:, None]
    return Left(first + kept[0], first + kept[1])


def _nearest(count: int, size: int, multiple: int) -> int:
    """So many go that a multiple stays, or all; the larger of two as near."""
    stays = size - count
    return size - min((size, *range(multiple, size, multiple)[::-1]), key=lambda possible: abs(possible - stays))


@dataclass(frozen=True)
class Kind:
    size: Callable[[Attention], int]
    groups: Callable[[Attention], list[Group]]
    left: Callable[[Attention, Kept], Left]
    rounded: Callable[[int, int, int], int]


KINDS: Mapping[str, Kind] = {
    "heads": Kind(lambda one: one.heads, _head_groups, _heads_left, lambda count, _size, _multiple: count),
    "dimensions": Kind(lambda one: one.dimension, _dimension_groups, _dimensions_left, _nearest),
}


def _most(scores: list[Tensor], gone: int) -> Kept:
    return [score.argsort(dim=-1, stable=True)[..., gone:] for score in scores]


def _units(scores: list[Tensor]) -> Tensor:
    """What goes at once, rising: a head, or the next dimension of each head, of queries with keys and of values."""
    return torch.stack([score.sort(-1).values for score in scores]).flatten(0, -2).sum(0)
