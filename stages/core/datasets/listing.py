"""What a source tells about its pictures, before any of them is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stages.core.predicting.pictures import Picture

TRAIN, VAL, TEST = "train", "val", "test"


@dataclass(frozen=True)
class Item:
    """One picture. `open` can be sent to another process and raises `Unreadable` where there is no picture."""

    name: str
    label: int
    open: Callable[[], Picture]
    given: str = ""  # the split that the source itself puts it in, if it does
    groups: Mapping[str, str] = field(default_factory=dict)  # what else the source tells of it, by column


@dataclass(frozen=True)
class Listing:
    """A data set: its name, its classes in order, its pictures, and what else lay there."""

    name: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    unlabelled: tuple[str, ...] = ()  # names of pictures that can only be predicted
    other_files: int = 0  # that are no pictures by their ending
