"""Every picture decoded and resized once, by all cores, into one file; memory does not grow with their number."""

import math
import multiprocessing
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np

from stages.core.datasets.listing import Item
from stages.core.predicting import pictures
from stages.core.predicting.pictures import Unreadable
from stages.core.running import files, processes, progress
from stages.core.running.errors import Refusal

CHUNK = 32  # pictures that one process takes at a time
FEW = 256  # are decoded here rather than by processes that must first be started
SPARE = 2**26  # bytes of the disk that are left to others


@dataclass(frozen=True)
class Seen:
    """What an item turned out to be; `problem` says why it cannot be used, and the rest is then empty."""

    content: str = ""
    likeness: int = 0
    width: int = 0
    height: int = 0
    mode: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Task:
    items: Sequence[Item]
    first: int
    size: int
    fit: str
    pixels: Path


class Rows:
    """The decoded pictures in their file, read one by one: mapped, they would all count as memory in use."""

    def __init__(self, path: Path, size: int) -> None:
        self._stream = path.open("rb")
        self._shape = (size, size, 3)

    def __getitem__(self, number: int) -> np.ndarray:
        length = math.prod(self._shape)
        self._stream.seek(number * length)
        return np.frombuffer(self._stream.read(length), np.uint8).reshape(self._shape)

    def close(self) -> None:
        self._stream.close()


def decode(items: Sequence[Item], size: int, fit: str, pixels: Path) -> list[Seen]:
    """Row n of `pixels`, a plain file of uint8 RGB, is item n at its final size; a broken item leaves zeros."""
    needed = len(items) * size * size * 3
    _refuse_full_disk(pixels.parent, 2 * needed)  # here, and once more when they are stored by split
    with files.writing(pixels), pixels.open("wb") as stream:
        stream.truncate(needed)
    tasks = [Task(items[at : at + CHUNK], at, size, fit, pixels) for at in range(0, len(items), CHUNK)]
    seen: list[Seen] = []
    began = time.monotonic()
    with progress.bars() as bars:
        bar = bars.add_task("decode", total=len(items), facts="")
        for found in _here(tasks) if len(items) <= FEW or processes.cores() == 1 else _everywhere(tasks):
            seen += found
            rate = len(seen) / (time.monotonic() - began)
            bars.update(bar, completed=len(seen), facts=f"{rate:,.0f} pictures/s")
    return seen


def _here(tasks: Sequence[Task]) -> Iterator[list[Seen]]:
    return map(_carry_out, tasks)


def _everywhere(tasks: Sequence[Task]) -> Iterator[list[Seen]]:
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    done = 0
    with ProcessPoolExecutor(processes.cores(), context, initializer=_start) as pool:
        try:
            for found in pool.map(_carry_out, tasks):
                yield found
                done += 1
        except BrokenProcessPool as error:
            near = tasks[done].items
            raise Refusal(
                f"a process that decodes pictures died near {near[0].name} to {near[-1].name}: "
                "is memory short, or does one of them crash its decoder? Remove it, or free memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start() -> None:
    processes.end_with_pool()
    warnings.filterwarnings("ignore", module="PIL")  # a damaged file is named, not warned of


def _carry_out(task: Task) -> list[Seen]:
    seen: list[Seen] = []
    with files.writing(task.pixels), task.pixels.open("r+b") as stream:
        stream.seek(task.first * task.size * task.size * 3)
        for item in task.items:
            found, pixels = _decode(item, task.size, task.fit)
            stream.write(pixels.tobytes())
            seen.append(found)
    return seen


def _decode(item: Item, size: int, fit: str) -> tuple[Seen, np.ndarray]:
    try:
        picture = item.open()
    except Unreadable as problem:
        return Seen(problem=str(problem)), np.zeros((size, size, 3), np.uint8)
    fitted = pictures.FITS[fit](picture.image, size)
    likeness = int(str(imagehash.phash(fitted)), 16)
    width, height = picture.image.size
    return Seen(pictures.digest(picture.image), likeness, width, height, picture.mode), np.asarray(fitted)


def _refuse_full_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free - SPARE
    if needed > free:
        raise Refusal(
            f"the pictures need {needed / 2**30:.1f} GiB of disk for a while, and {folder} has {free / 2**30:.1f}: "
            "free some, or lower prepare.image_size"
        )
