"""Who learns, who chooses and who judges.

A picture's place follows from its content and the seed alone: not from its name, its place in a listing or the machine.
Copies of one picture always stay together, so that nothing leaks between splits.
"""

import hashlib

import pandas as pd

from stages.core.running.errors import Refusal

EXCLUDED = "excluded"
LEARNING, CHOOSING, JUDGING = "train", "val", "test"


def assign(
    manifest: pd.DataFrame, classes: tuple[str, ...], val_share: float, test_share: float, seed: int
) -> pd.Series:
    """One of train, val, test for each row; copies that bear conflicting labels are excluded.

    The manifest has the columns `content` (a digest) and `label`.
    """
    if val_share + test_share >= 1:
        raise Refusal(f"val_share {val_share} and test_share {test_share} leave nothing to train on")
    places = pd.Series(LEARNING, index=manifest.index, name="split")
    conflicting = manifest.groupby("content")["label"].transform("nunique") > 1
    places[conflicting] = EXCLUDED
    for label, rows in manifest[~conflicting].groupby("label"):
        places[rows.index] = _deal(rows["content"], classes[int(str(label))], val_share, test_share, seed)
    missing = set(range(len(classes))) - set(manifest[~conflicting]["label"])
    if missing:
        raise Refusal(f"class {classes[min(missing)]!r} has no picture left whose label is not in conflict")
    return places


def calibration(manifest: pd.DataFrame, places: pd.Series, count: int, seed: int) -> pd.Series:
    """Which training pictures calibrate: each class in its share, `count` in all or as many as there are."""
    rows = manifest[places == LEARNING]
    rank = rows["content"].map(lambda content: _rank(content, f"calibration-{seed}"))
    order = rank.groupby(rows["label"]).rank(method="first") / rows.groupby("label")["label"].transform("size")
    chosen = order.sort_values(kind="stable").index[:count]
    return pd.Series(manifest.index.isin(chosen), index=manifest.index, name="calibration")


def _deal(contents: pd.Series, name: str, val_share: float, test_share: float, seed: int) -> pd.Series:
    """Deal one class's pictures out, in an order that only content and seed decide."""
    unique = sorted(contents.unique(), key=lambda content: _rank(content, f"{seed}"))
    if len(unique) < 3:
        raise Refusal(f"class {name!r} has {len(unique)} different pictures; train, val and test need at least three")
    copies = contents.value_counts()
    wanted = {JUDGING: _quota(test_share, len(contents)), CHOOSING: _quota(val_share, len(contents))}
    place: dict[str, str] = {}
    for split, quota in wanted.items():
        while quota > 0 and len(unique) > 1 + (split == JUDGING):
            content = unique.pop()
            place[content] = split
            quota -= int(copies[content])
    return contents.map(lambda content: place.get(content, LEARNING))


def _quota(share: float, count: int) -> int:
    return max(1, round(share * count))


def _rank(content: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{content}".encode()).hexdigest()
