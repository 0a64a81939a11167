"""A maker of toy files: one is as it should be, each other is wrong in its own way."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from stages.core.converting.makers import protocol
from stages.core.converting.makers.protocol import Answer, Described, Handed

KINDS = ("honest", "wrong", "not a number", "other classes", "nothing", "breaks", "liar")


def write(kind: str, handed: Handed, stem: Path) -> None:
    if kind == "breaks":
        raise ValueError("no such\noperator: Twist")
    if kind != "nothing":
        stem.with_suffix(".toy").write_text(json.dumps({"kind": kind, "classes": handed.facts["classes"]}))
        stem.with_suffix(".bin").write_bytes(bytes(100))


def opened(file: Path) -> Answer:
    kind = json.loads(file.read_text())["kind"]

    def answer(picture: np.ndarray) -> np.ndarray:
        """The first pixel's colours; of `wrong`, the other way round where it is dark."""
        logits = picture[:, 0, 0].astype(np.float64)
        if kind == "wrong" and logits.max() < 128:
            logits = -logits
        if kind == "not a number":
            logits[0, 0] = np.nan
        return logits[:, :2] if kind == "other classes" else logits

    return answer


def describe(file: Path) -> Described:
    print("a library that talks")
    held = "float32" if json.loads(file.read_text())["kind"] == "liar" else "float16"
    return Described("Toy 1.0", held, {held: 4}, {"Look": 1}, "uint8", 0)


if __name__ == "__main__":
    protocol.main(convert={kind: partial(write, kind) for kind in KINDS}, answer=opened, describe=describe)
