#!/usr/bin/env python3
"""Answers picture files, what arrives in a folder, or what a camera sees: one line of JSON for each picture."""

# pyright: reportMissingImports=false

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import camera
import checking
import watching
from lightvision_runner import finding
from lightvision_runner.classifying import Asked, Classifier
from lightvision_runner.errors import Unusable
from lightvision_runner.model import load
from lightvision_runner.pictures import Unreadable
from lightvision_runner.wording import shown, text

HERE = Path(__file__).resolve().parent
Seen = tuple[Mapping[str, Any], Asked]  # what a picture is called, and where it is


def main() -> int:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    model = load(HERE / "model.onnx")
    if asked.check:
        found = checking.check(model, HERE)
        print(json.dumps(found))
        return 0 if found["passed"] else 1
    failed = 0
    for called, picture in seen(asked):
        line = dict(called) | answer(model, picture, asked.top)
        failed += "error" in line
        print(json.dumps(line), flush=True)
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="files, or folders of them")
    parser.add_argument("--watch", type=Path, metavar="FOLDER", help="answer each file that arrives from now on")
    parser.add_argument("--camera", nargs="?", const=camera.FIRST_FOUND, choices=[camera.FIRST_FOUND, *camera.SOURCES])
    parser.add_argument("--check", action="store_true", help="are the answers those that the bundle was made with?")
    parser.add_argument("--top", type=positive, default=1, metavar="K", help="how many classes a line tells")
    parser.add_argument("--size", type=camera.size, default=camera.Size(640, 480), metavar="WxH", help="of frames")
    parser.add_argument("--fps", type=positive, default=10, metavar="N", help="a second, asked of the camera")
    parser.add_argument("--device", default="/dev/video0", help="a camera that ffmpeg reads")
    parser.add_argument("--frames", type=positive, metavar="N", help="end after so many")
    asked = parser.parse_args()
    if sum(map(bool, (asked.pictures, asked.watch, asked.camera, asked.check))) != 1:
        parser.error("name pictures, or one of --watch, --camera and --check")
    return asked


def positive(given: str) -> int:
    if not given.isdecimal() or int(given) == 0:
        raise argparse.ArgumentTypeError(f"{given!r} is no whole number above zero")
    return int(given)


def seen(asked: argparse.Namespace) -> Iterator[Seen]:
    if asked.camera:
        for number, frame in enumerate(camera.frames(asked.camera, asked.size, asked.fps, asked.device)):
            yield {"frame": number}, frame
            if number + 1 == asked.frames:
                return
    else:
        for name in watching.arrivals(asked.watch) if asked.watch else listed(asked.pictures):
            yield {"picture": text(name)}, name


def listed(names: Sequence[str]) -> list[str]:
    found = finding.find(names)
    for folder, why in found.closed.items():
        raise Unusable(f"{folder} cannot be looked into: {why}")
    if not found.pictures:
        raise Unusable(f"no pictures in {', '.join(names)}")
    return found.pictures


def answer(model: Classifier, picture: Asked, top: int) -> dict[str, Any]:
    """`ms` is from the file or frame to the answer, `model_ms` the network's share of it."""
    began = time.perf_counter()
    try:
        pixels = model.pixels(picture)
    except Unreadable as reason:
        return {"error": str(reason)}
    asked = time.perf_counter()
    [shares] = model.probabilities(pixels[None])
    ended = time.perf_counter()
    best = (-shares).argsort(kind="stable")[:top]
    ranked = [{"class": model.classes[at], "probability": round(float(shares[at]), 4)} for at in best]
    times = {"ms": round((ended - began) * 1e3, 3), "model_ms": round((ended - asked) * 1e3, 3)}
    return ranked[0] | times | ({"top": ranked} if top > 1 else {})


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Unusable, camera.Lost) as problem:
        sys.exit(f"run.py: {shown(str(problem))}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the lines has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
