"""What a person should look at first, in words, and names that are safe to show."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core import words

FEW = 50  # pictures of a class: its test split has then some ten, and each is worth ten points
UNEVEN = 3  # times as many pictures in the largest class as in the rarest
NAMED = 5  # classes that a sentence names
SPLITS = ("train", "val", "test")
STEERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # would turn the text around a name
LOOKED_FOR = (
    "Looked for: files that cannot be read, the same pixels under several names or labels, the same photograph "
    "compressed again, resized or a little brighter, classes that are small or uneven. Not looked for: wrong labels, "
    "mirrored or cropped copies, other photographs of the same object."
)


@dataclass(frozen=True)
class Remark:
    """A sentence and its heading; what is not grave is only worth knowing."""

    title: str
    text: str
    grave: bool = True


def remarks(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Remark]:
    """Worst first."""
    return [remark for kind in KINDS for remark in kind(details, metrics)]


def used(row: Mapping[str, Any]) -> int:
    """Pictures of a class that are in any split."""
    return sum(row[split] for split in SPLITS)


def largest_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: (-used(row), -row["excluded"]))


def across(members: Sequence[Mapping[str, Any]]) -> bool:
    """Whether copies are in several splits; what is left out of all of them can leak nothing."""
    return len({one["split"] for one in members} - {"excluded"}) > 1


def pictures(metrics: Mapping[str, Any]) -> int:
    return sum(metrics["pictures"].values())


def decoded(metrics: Mapping[str, Any]) -> int:
    return pictures(metrics) - metrics["broken"]


def sides(size: str) -> tuple[int, int]:
    """Of "640 x 480"."""
    width, height = size.split(" x ")
    return int(width), int(height)


def plain(value: Any) -> Any:
    """The same, where texts are harmless: what would steer a terminal or a line, or is no character, is spelt out."""
    if isinstance(value, str):
        return "".join(_spelt(letter) if _steers(letter) else letter for letter in value)
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cs"} or unicodedata.bidirectional(letter) in STEERING


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _leaks(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    count = metrics["near_copies_across_splits"]
    if count:
        yield Remark(
            "Leak between splits",
            f"{words.plural(count, 'pair')} of near copies {_verb(count)} in different splits, so that accuracy may be "
            "flattered. With prepare.policy.near_copies: together they share one.",
        )


def _conflicts(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    count = metrics["conflicting_labels"]
    if count:
        yield Remark(
            "Conflicting labels",
            f"{words.plural(count, 'group')} of files {'holds' if count == 1 else 'hold'} the same pixels under "
            f"different labels, and {_verb(count)} left out.",
        )
    disputed = sum(len({end["class"] for end in pair["pictures"]}) > 1 for pair in details["near_copies"])
    if disputed:
        yield Remark(
            "Near copies of different classes",
            f"In {words.plural(disputed, 'pair')} of near copies the two are of different classes: "
            "is one of them labelled wrongly?",
        )


def _broken(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    count = metrics["broken"]
    if count:
        yield Remark("Broken files", f"{words.plural(count, 'file')} cannot be read and {_verb(count)} left out.")


def _few(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    lost = [row["class"] for row in details["classes"] if not used(row)]
    if lost:
        yield Remark(
            "Classes that cannot be learnt",
            f"{words.plural(len(lost), 'class')} {_verb(len(lost))} left out for want of pictures: {_some(lost)}.",
        )
    small = [row for row in reversed(largest_first(details["classes"])) if 0 < used(row) < FEW]
    if small:
        named = _some([f"{row['class']} ({used(row)})" for row in small])
        yield Remark(
            "Few pictures",
            f"{words.plural(len(small), 'class')} {'has' if len(small) == 1 else 'have'} fewer than {FEW} usable "
            f"pictures: {named}. Whatever is measured of them will be uncertain.",
        )


def _uneven(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    if metrics["imbalance"] > UNEVEN:
        yield Remark(
            "Imbalance",
            f"The largest class has {metrics['imbalance']:.1f} times as many pictures as the rarest, which has "
            f"{metrics['rarest_class']:,}. Read recall by class, not accuracy alone.",
        )


def _copies(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    if metrics["copies"]:
        yield Remark(
            "Exact copies",
            f"{words.plural(metrics['copies'], 'picture')} {'repeats' if metrics['copies'] == 1 else 'repeat'} "
            "the pixels of another. Copies are never dealt to different splits.",
            grave=False,
        )
    together = metrics["near_copies"] - metrics["near_copies_across_splits"]
    if together:
        yield Remark(
            "Near copies",
            f"{words.plural(together, 'pair')} of near copies {'lies' if together == 1 else 'lie'} in one split: "
            "there is less variety than the counts say, but no leak.",
            grave=False,
        )


def _sizes(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    sizes = [sides(entry["value"]) for entry in details["sizes"]]
    if len(sizes) > 1:
        (low, high), (least, most) = ((min(side), max(side)) for side in zip(*sizes, strict=True))
        yield Remark(
            "Mixed sizes",
            f"Pictures are {low:,} to {high:,} pixels wide and {least:,} to {most:,} high; all are made to fit.",
            grave=False,
        )
    needed = details.get("image_size")
    upscaled = sum(entry["pictures"] for entry in details["sizes"] if min(sides(entry["value"])) < (needed or 0))
    if upscaled:
        yield Remark(
            "Upscaling",
            f"{words.plural(upscaled, 'picture')} {_verb(upscaled)} smaller than the {needed} pixels of the network's "
            "side: a smaller prepare.image_size loses nothing of them.",
            grave=False,
        )


def _others(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[Remark]:
    count = metrics["unlabelled"]
    if count:
        text = f"{words.plural(count, 'picture')} without a label {_verb(count)} listed for prediction alone."
        yield Remark("Unlabelled", text, grave=False)
    count = metrics["other_files"]
    if count:
        text = (
            f"{words.plural(count, 'file')} that {_verb(count)} no {'picture' if count == 1 else 'pictures'} by ending "
        )
        yield Remark(
            "Other files", f"{text}lay among them and {'was' if count == 1 else 'were'} passed over.", grave=False
        )


def _verb(count: int) -> str:
    return "is" if count == 1 else "are"


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED:,} more"] if len(names) > NAMED else []
    return words.listed([*names[:NAMED], *more])


Kind = Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[Remark]]
KINDS: tuple[Kind, ...] = (_leaks, _conflicts, _broken, _few, _uneven, _copies, _sizes, _others)
