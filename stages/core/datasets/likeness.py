"""Pictures that are nearly the same: one photograph compressed again, resized or a little brighter.

Perceptual hashes (64 signs of the lowest cosine frequencies) propose pairs, the pixels decide: a pair counts if its
colours, as vectors of zero mean, have a cosine of at least ALIKE, or ALIKE_IF_SMALL: the fewer pixels pictures have,
the more of them look alike without being copies. Hashes are compared within bands of their bits: those that differ in
fewer bits than there are bands share a band.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.core.datasets.decoding import Rows, Seen

BITS = 8  # that hashes of near copies differ in at most
ALIKE, ALIKE_IF_SMALL, SMALL = 0.96, 0.99, 64  # the last in pixels, of a side as stored or as it was
WIDE, NARROW, MANY = 16, 8, 200_000  # bits of a band for more than so many pictures, and for fewer
CROWD = 50_000  # more pictures of one band show nothing in particular, and cost the square of their number
ROWS = 500  # of a comparison at a time


@dataclass(frozen=True)
class Pair:
    first: int
    second: int
    cosine: float


def near_copies(seen: Sequence[Seen], pixels: Rows) -> list[Pair]:
    """Pairs of different content that look the same; of exact copies, the first stands for all."""
    unique = list({one.content: n for n, one in reversed(list(enumerate(seen))) if one.content}.values())
    codes = np.array([seen[n].likeness for n in unique], np.uint64)
    found: list[Pair] = []
    for first, second in sorted({(min(a, b), max(a, b)) for a, b in np.array(unique)[_candidates(codes)].tolist()}):
        one, other = pixels[first], pixels[second]
        sides = (len(one), *(side for n in (first, second) for side in (seen[n].width, seen[n].height)))
        cosine = _cosine(one, other)
        if cosine >= (ALIKE_IF_SMALL if min(sides) < SMALL else ALIKE):
            found.append(Pair(first, second, cosine))
    return found


def groups(pairs: Sequence[Pair], contents: Sequence[str]) -> dict[str, str]:
    """For each content that has near copies, the smallest content that it is connected with."""
    parents: dict[str, str] = {}

    def root(content: str) -> str:
        while parents.setdefault(content, content) != content:
            content = parents[content]
        return content

    for pair in pairs:
        low, high = sorted((root(contents[pair.first]), root(contents[pair.second])))
        parents[high] = low
    return {content: root(content) for content in parents}


def _candidates(codes: np.ndarray) -> np.ndarray:
    """Index pairs whose hashes share a band and differ in few bits."""
    found = [np.empty((0, 2), np.int64)]
    width = WIDE if len(codes) > MANY else NARROW
    for start in range(0, 64, width):
        keys = (codes >> np.uint64(start)) & np.uint64(2**width - 1)
        for run in _runs(keys):
            for at in range(0, len(run) if len(run) <= CROWD else 0, ROWS):
                near = np.bitwise_count(codes[run[at : at + ROWS], None] ^ codes[None, run]) <= BITS
                first, second = np.nonzero(np.triu(near, at + 1))
                found.append(np.stack([run[at + first], run[second]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _runs(keys: np.ndarray) -> Iterator[np.ndarray]:
    """The positions of each key that occurs more than once."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    return (run for run in np.split(order, ends) if len(run) > 1)


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    """A picture of one colour is like no other: only its own copies are."""
    one, other = (picture.reshape(-1, 3).astype(np.float32) for picture in (first, second))
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norms if norms > 0 else 0.0
