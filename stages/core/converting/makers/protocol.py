"""What a maker is asked and how it answers; imports nothing that one of its environments could lack.

    python -m stages.core.converting.makers.NAME convert HANDED STEM KIND
    python -m stages.core.converting.makers.NAME answer FILE IMAGES.npy LOGITS.npy [TIMES.json]
    python -m stages.core.converting.makers.NAME describe FILE

A maker has three things: a table of kinds, each with a function that writes the file (or files) of that kind at
`stem.with_suffix(...)`; `opened`, which loads a file once, for one thread, and returns what answers one picture; and
`describe`, which reads from the file itself what it is. What goes wrong is one line on stderr, and exit status 1; 74
(EX_IOERR) where the machine went wrong, as with a full disk, and not what was asked.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP, CALLS, SECONDS = 10, 100, 3.0  # as many calls are timed as these seconds allow, and a few at least
FEWEST = 10
REFUSED, BROKEN = 1, 74


@dataclass(frozen=True)
class Handed:
    """The folder that a maker is given to make its file from."""

    folder: Path

    @property
    def network(self) -> Path:
        """Of torch.export: float32 `images` [1, H, W, 3] of 0..255 in, [1, classes] out; it normalises by itself."""
        return self.folder / "network.pt2"

    @property
    def program(self) -> Path:
        """Of torch.export, too, as it is shipped: uint8 `images` [batch, H, W, 3] in."""
        return self.folder / "program.pt2"

    @property
    def onnx(self) -> Path:
        """The shipped float32 file, its numbers unpacked: uint8 [batch, H, W, 3] in."""
        return self.folder / "network.onnx"

    @property
    def integers(self) -> Path:
        """The quantized network, its codes unpacked: plain QuantizeLinear and DequantizeLinear; uint8 in."""
        return self.folder / "integers.onnx"

    @property
    def shipped(self) -> Path:
        """The shipped float32 file, as it is."""
        return self.folder / "shipped.onnx"

    @property
    def packed(self) -> Path:
        """The shipped quantized file, as it is."""
        return self.folder / "packed.onnx"

    @cached_property
    def calibration(self) -> np.ndarray:
        """uint8 [pictures, H, W, 3], drawn from train."""
        return np.load(self.folder / "calibration.npy")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """classes, image_size, fit, mean, std."""
        return json.loads((self.folder / "handed.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Described:
    """Read from the file itself. `types` counts the tensors of each type, weights and what flows; `transposes` and
    `delegated` (the share of operators that a faster backend takes) are None where a format has no such thing."""

    runtime: str
    kind: str
    types: Mapping[str, int]
    operators: Mapping[str, int]
    input: str
    transposes: int | None = None
    delegated: float | None = None


Convert = Callable[[Handed, Path], None]
Answer = Callable[[np.ndarray], np.ndarray]  # uint8 [1, H, W, 3] -> float32 [1, classes]
Open = Callable[[Path], Answer]
Describe = Callable[[Path], Described]


def main(convert: Mapping[str, Convert], answer: Open, describe: Describe) -> None:
    """Standard output is for the description alone: what libraries print goes to stderr."""
    asked = _parse(list(convert))
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        if asked.verb == "convert":
            convert[asked.kind](Handed(asked.handed), asked.stem)
        elif asked.verb == "answer":
            _answer(answer(asked.file), asked)
        else:
            print(json.dumps(vars(describe(asked.file)), allow_nan=False), file=told, flush=True)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the process that asked reads one line
        print("\n" + " ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr, flush=True)
        _end(BROKEN if isinstance(error, OSError | MemoryError) else REFUSED)
    _end(0)


def _parse(kinds: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    converting = verbs.add_parser("convert")
    converting.add_argument("handed", type=Path)
    converting.add_argument("stem", type=Path)
    converting.add_argument("kind", choices=kinds)
    answering = verbs.add_parser("answer")
    answering.add_argument("file", type=Path)
    answering.add_argument("images", type=Path)
    answering.add_argument("logits", type=Path)
    answering.add_argument("times", type=Path, nargs="?")
    verbs.add_parser("describe").add_argument("file", type=Path)
    return parser.parse_args()


def _answer(answer: Answer, asked: argparse.Namespace) -> None:
    """Pictures stay on disk until their turn: those of a large split fill a memory."""
    images = np.load(asked.images, mmap_mode="r")
    logits = [np.asarray(answer(_picture(images, number)), dtype=np.float32).ravel() for number in range(len(images))]
    np.save(asked.logits, np.stack(logits))
    if asked.times:
        asked.times.write_text(json.dumps(_milliseconds(answer, images)), encoding="utf-8")


def _milliseconds(answer: Answer, images: np.ndarray) -> list[float]:
    for call in range(WARM_UP):
        answer(_picture(images, call))
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < CALLS and (len(taken) < FEWEST or time.perf_counter() < end):
        picture = _picture(images, len(taken))
        began = time.perf_counter_ns()
        answer(picture)
        taken.append((time.perf_counter_ns() - began) / 1e6)
    return taken


def _picture(images: np.ndarray, number: int) -> np.ndarray:
    """One of them, counted in a circle, in memory of its own."""
    return np.array(images[number % len(images)][None])


def _end(status: int) -> None:
    """Not through the libraries' own destructors, some of which abort a process that has done its work."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
