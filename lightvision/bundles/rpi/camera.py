"""Frames of a camera as another program writes them into a pipe, raw: no camera library is needed here.

Whoever answers more slowly than the camera sees gets the newest frame each time, and never falls behind.
"""

import argparse
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np

FIRST_FOUND = "auto"
SILENT = 10.0  # seconds without a frame, after which a camera counts as lost
ALIGNED = 64  # rows of rpicam-vid's raw frames are padded to this


class Lost(Exception):
    """There is no camera, or no more; the message says why."""


class Size(NamedTuple):
    width: int
    height: int


@dataclass(frozen=True)
class Source:
    """Which programs can write frames, how one is called, how many bytes a frame takes, and how it becomes RGB."""

    programs: tuple[str, ...]
    command: Callable[[str, Size, int, str], list[str]]
    bytes: Callable[[Size], int]
    rgb: Callable[[np.ndarray, Size], np.ndarray]


def size(text: str) -> Size:
    """Both even, since colours are shared by two pixels either way."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 and int(side) % 2 == 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 640x480, of even numbers")
    return Size(*map(int, sides))


def frames(name: str, size: Size, fps: int, device: str) -> Iterator[np.ndarray]:
    """RGB, uint8 [height, width, 3], the newest each time, until the camera ends or is lost."""
    source, program = _found(name)
    if program.startswith(("rpicam", "libcamera")) and size.width % ALIGNED:
        raise Lost(f"{program} pads rows to {ALIGNED} pixels: take a --size whose width is a multiple of it")
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        running = _started(source.command(program, size, fps, device), errors)
        newest: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=1)
        reader = threading.Thread(target=_read, args=(running.stdout, source.bytes(size), newest), daemon=True)
        reader.start()
        try:
            while (frame := newest.get(timeout=SILENT)) is not None:
                yield source.rgb(frame, size)
            raise Lost(f"{program} ended: {_last_line(errors) or f'status {running.wait()}'}")
        except queue.Empty:
            raise Lost(f"{program} sent no frame for {SILENT:g} seconds") from None
        finally:
            running.kill()
            running.wait()
            while reader.is_alive():
                with suppress(queue.Empty):
                    newest.get(timeout=0.1)


def _started(command: list[str], errors: IO[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Lost(f"{command[0]} cannot be started: {error.strerror}") from error


def _found(name: str) -> tuple[Source, str]:
    wanted = SOURCES.values() if name == FIRST_FOUND else [SOURCES[name]]
    programs = [(source, program) for source in wanted for program in source.programs]
    for source, program in programs:
        if shutil.which(program):
            return source, program
    raise Lost(
        f"none of {', '.join(program for _, program in programs)} is here: `sudo apt install rpicam-apps` or ffmpeg"
    )


def _read(stream: IO[bytes], size: int, newest: "queue.Queue[np.ndarray | None]") -> None:
    while len(held := stream.read(size)) == size:
        _put(newest, np.frombuffer(held, np.uint8))
    newest.put(None)


def _put(newest: "queue.Queue[np.ndarray | None]", frame: np.ndarray) -> None:
    """In the place of one that nobody has looked at yet."""
    with suppress(queue.Empty):
        newest.get_nowait()
    newest.put(frame)


def _last_line(errors: IO[str]) -> str:
    errors.seek(0)
    return (errors.read().strip().splitlines() or [""])[-1]


def from_yuv420(frame: np.ndarray, size: Size) -> np.ndarray:
    """BT.601 of full range, which rpicam-vid uses for this format; a colour is shared by two pixels either way."""
    pixels, half = size.width * size.height, (2, size.height // 2, size.width // 2)
    bright = frame[:pixels].reshape(size.height, size.width).astype(np.float32)
    blue, red = frame[pixels:].reshape(half).astype(np.float32).repeat(2, axis=1).repeat(2, axis=2) - 128
    colours = (bright + 1.402 * red, bright - 0.344136 * blue - 0.714136 * red, bright + 1.772 * blue)
    return np.stack(colours, axis=-1).round().clip(0, 255).astype(np.uint8)


def from_rgb(frame: np.ndarray, size: Size) -> np.ndarray:
    return frame.reshape(size.height, size.width, 3)


def _rpicam(program: str, size: Size, fps: int, device: str) -> list[str]:
    words = f"--nopreview --timeout 0 --codec yuv420 --framerate {fps} --width {size.width} --height {size.height}"
    return [program, *words.split(), "--flush", "--output", "-"]


def _ffmpeg(program: str, size: Size, fps: int, device: str) -> list[str]:
    """The camera may have no such rate or size: ffmpeg makes them."""
    made = f"-vf fps={fps},scale={size.width}:{size.height} -f rawvideo -pix_fmt rgb24 -"
    return [program, *["-hide_banner", "-loglevel", "error", "-f", "v4l2", "-i"], device, *made.split()]


SOURCES: Mapping[str, Source] = {
    "rpicam": Source(
        ("rpicam-vid", "libcamera-vid"), _rpicam, lambda size: size.width * size.height * 3 // 2, from_yuv420
    ),
    "ffmpeg": Source(("ffmpeg",), _ffmpeg, lambda size: size.width * size.height * 3, from_rgb),
}
