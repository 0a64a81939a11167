"""Pictures are decoded by threads while a network answers the ones before; memory does not grow with their number."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from .pictures import Unreadable

Asked = TypeVar("Asked")
Decoded = tuple[Asked, np.ndarray | Unreadable]


def batches(
    asked: Iterable[Asked], decode: Callable[[Asked], np.ndarray], size: int
) -> Iterator[list["Decoded[Asked]"]]:
    """In order, `size` at a time; a picture that cannot be read has its reason in the place of pixels."""
    found = _decoded(asked, decode, 2 * size)
    while batch := list(islice(found, size)):
        yield batch


def _decoded(asked: Iterable[Asked], decode: Callable[[Asked], np.ndarray], most: int) -> Iterator["Decoded[Asked]"]:
    waiting: deque[tuple[Asked, Future[np.ndarray]]] = deque()
    pool = ThreadPoolExecutor(cores())
    try:
        for one in asked:
            waiting.append((one, pool.submit(decode, one)))
            if len(waiting) == most:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(waiting: "deque[tuple[Asked, Future[np.ndarray]]]") -> "Decoded[Asked]":
    one, pixels = waiting.popleft()
    try:
        return one, pixels.result()
    except Unreadable as reason:
        return one, reason


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
