"""`lightvision bench`: measured side by side in one run, on the machine at hand."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from lightvision import ladder
from stages.core import params
from stages.core.datasets import decoding, sources, storage
from stages.core.datasets.decoding import Rows
from stages.core.datasets.listing import Listing
from stages.core.datasets.storage import Split
from stages.core.predicting.pictures import FITS
from stages.core.running import files, processes, progress
from stages.core.running.errors import Refusal
from stages.core.running.journal import home

LARGE = (512, 384)  # pixels of a made picture, a common size of photographs in data sets
CLASSES = 4  # of made pictures
FEWEST_ROUNDS = 4  # that have an interval
WORKERS: dict[str, Any] = {"type": int, "default": processes.cores(), "help": "of each DataLoader"}


def add_data(members: Any, action: str) -> None:
    text = (
        "Pictures a second of our loader and of torchvision's ImageFolder in a DataLoader, with the same augmentation."
    )
    parser = _beside(members, action, text)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", **WORKERS)
    parser.set_defaults(run=data)


def data(
    path: Path | None, made: int, image_size: int, batch_size: int, workers: int, rounds: int, json: Path | None
) -> int:
    from lightvision import loading  # torch and torchvision take seconds

    with tempfile.TemporaryDirectory() as scratch:
        folder = path or make(Path(scratch) / "made", made)
        listing = sources.listing(params.Own(name="folder", path=str(folder)), home())
        began = time.monotonic()
        split = prepare(listing, image_size, Path(scratch))
        seconds = time.monotonic() - began
        found = loading.compare(folder, split, image_size, batch_size, workers, rounds)
    found = {
        "data": folder.name,
        "pictures": len(split),
        "image_size": image_size,
        "batch_size": batch_size,
        "prepared_once_pictures_per_second": round(len(split) / seconds, 1),
    } | found
    show(found)
    if json:
        files.write_json(json, found)
    return 0


def add_training(members: Any, action: str) -> None:
    text = (
        "Train one network in our loop, in a plain PyTorch script and with timm's parts, in turns: pictures a second "
        "of each, accuracy on a held-out fifth, and how near ours is to the network's own ceiling."
    )
    parser = _beside(members, action, text)
    _of_trainings(parser)
    parser.add_argument("--width", type=float, default=0.25, help="of the ResNet-18 that is trained")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", **WORKERS)
    parser.set_defaults(run=training)


def training(
    path: Path | None,
    made: int,
    image_size: int,
    batch_size: int,
    width: float,
    precision: str,
    epochs: int,
    workers: int,
    rounds: int,
    json: Path | None,
) -> int:
    from lightvision import learning  # torch, torchvision and timm take seconds

    with tempfile.TemporaryDirectory() as scratch:
        folder, split = gathered(path, made, image_size, Path(scratch))
        network = params.ResNet(name="resnet18", stem="auto", width=width)
        contest = learning.Contest(folder, split, network, precision, epochs, batch_size, workers)
        found = learning.compare(contest, rounds, Path(scratch))
    return tell(folder, split, batch_size, found, json)


def add_distillation(members: Any, action: str) -> None:
    text = (
        "Train a student without a teacher, with a teacher that was asked once about views, and with one asked at each "
        "step, in turns: seconds an epoch, and accuracy on a held-out fifth."
    )
    parser = _beside(members, action, text)
    _of_trainings(parser)
    parser.add_argument("--width", type=float, default=0.25, help="of the ResNet-18 that teaches")
    parser.add_argument("--blocks", type=int, default=4, help="of the residual CNN that learns")
    parser.add_argument("--views", type=int, default=4, help="of each picture, that the teacher is asked about once")
    parser.add_argument("--epochs", type=int, default=6)
    parser.set_defaults(run=distillation)


def distillation(
    path: Path | None,
    made: int,
    image_size: int,
    batch_size: int,
    width: float,
    blocks: int,
    views: int,
    precision: str,
    epochs: int,
    rounds: int,
    json: Path | None,
) -> int:
    from lightvision import learning, teaching  # torch takes seconds

    with tempfile.TemporaryDirectory() as scratch:
        folder, split = gathered(path, made, image_size, Path(scratch))
        network = params.ResNet(name="resnet18", stem="auto", width=width)
        student = params.ResidualCNN(name="residual_cnn", blocks=blocks, hidden_layers=0)
        contest = learning.Contest(folder, split, network, precision, epochs, batch_size, workers=0)
        found = teaching.compare(contest, student, views, rounds, Path(scratch))
    return tell(folder, split, batch_size, found, json)


def add_targets(members: Any, action: str) -> None:
    text = (
        "The shipped files, converted ones, and what ONNX Runtime's own quantizer makes of pruned.onnx: bytes, "
        "accuracy, and latency of one picture on one thread, in turns, each time in a process of its own."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--shipped", type=Path, default=Path("models/shipped"), help="with pruned.onnx, quantized.onnx")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="other files, such as models/targets/*.xml")
    parser.add_argument(
        "--calibration", type=Path, default=Path("data/calibration"), help="what that quantizer is shown"
    )
    parser.add_argument("--judging", type=Path, default=Path("data/val"), help="the split that files answer")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.set_defaults(run=targets)


def targets(shipped: Path, beside: list[Path], calibration: Path, judging: Path, rounds: int, json: Path | None) -> int:
    if rounds < FEWEST_ROUNDS:
        raise Refusal(f"--rounds is at least {FEWEST_ROUNDS}: fewer have no interval")
    from lightvision import converted  # ONNX Runtime's quantizer takes a second

    float_file, integer_file = (shipped / f"{name}.onnx" for name in ("pruned", "quantized"))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        named = converted.named([float_file, integer_file, *beside])
        pictures = storage.load(calibration).images
        named |= converted.named(
            [converted.by_onnx_runtime(float_file, pictures, scratch / "onnx_runtime_static.onnx")]
        )
        found = converted.compare(named, float_file.stem, storage.load(judging), rounds, scratch)
    Console().print(converted.table(found))
    if json:
        files.write_json(json, found)
    return 0


def gathered(path: Path | None, made: int, image_size: int, scratch: Path) -> tuple[Path, Split]:
    """The pictures, or made ones, prepared."""
    folder = path or make(scratch / "made", made)
    listing = sources.listing(params.Own(name="folder", path=str(folder)), home())
    return folder, prepare(listing, image_size, scratch)


def tell(folder: Path, split: Split, batch_size: int, found: dict[str, Any], json: Path | None) -> int:
    size = split.facts.image_size
    found = {"data": folder.name, "pictures": len(split), "image_size": size, "batch_size": batch_size} | found
    show(found)
    if json:
        files.write_json(json, found)
    return 0


def _beside(members: Any, action: str, text: str) -> argparse.ArgumentParser:
    """What every comparison on a folder of pictures asks."""
    parser: argparse.ArgumentParser = members.add_parser(action, help=text, description=text, allow_abbrev=False)
    parser.add_argument("path", type=Path, nargs="?", help="one folder for each class; made pictures if not given")
    parser.add_argument("--made", type=int, default=2000, help="how many pictures to make where PATH is not given")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    return parser


def _of_trainings(parser: argparse.ArgumentParser) -> None:
    """What every comparison of trainings asks."""
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="float32 for a plain script, always",
    )
    parser.add_argument("--rounds", type=int, default=3, help="each with a seed of its own")


def prepare(listing: Listing, image_size: int, scratch: Path) -> Split:
    """As the stage does it, all in one split."""
    seen = decoding.decode(listing.items, image_size, "crop", scratch / "pixels")
    broken = [item.name for item, one in zip(listing.items, seen, strict=True) if one.problem]
    if broken:
        raise Refusal(
            f"{len(broken)} pictures cannot be read, {broken[0]} among them: `lightvision data check` lists them"
        )
    rows = Rows(scratch / "pixels", image_size)
    labels = np.array([item.label for item in listing.items])
    facts = storage.Facts(listing.name, listing.classes, image_size, (0.5,) * 3, (0.25,) * 3, "crop")
    roll = storage.Roll([item.name for item in listing.items], [one.content for one in seen], {})
    storage.write(scratch / "split", (rows[n] for n in range(len(labels))), labels, facts, roll)
    rows.close()
    return storage.load(scratch / "split")


def make(folder: Path, count: int) -> Path:
    """Noise of a few scales, so that it compresses about as photographs do."""
    generator = np.random.default_rng(0)
    for number in progress.track(range(count), "make", count):
        place = folder / f"class-{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (24, 32, 3), np.uint8)
        fine = generator.integers(0, 32, (LARGE[1], LARGE[0], 3), np.uint8)
        picture = np.asarray(FITS["stretch"](Image.fromarray(coarse), LARGE[0]))[: LARGE[1]]
        Image.fromarray((picture * 0.85 + fine).astype(np.uint8)).save(place / f"{number:05}.jpg", quality=85)
    return folder


def show(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['pictures']:,} pictures of {found['data']} at {found['image_size']} px")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for name, value in found.items():
        if not isinstance(value, dict | list):
            table.add_row(name.replace("_", " "), rounded(value) if isinstance(value, float) else str(value))
    Console().print(table)


def rounded(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


COMMANDS = {
    "data": add_data,
    "training": add_training,
    "distillation": add_distillation,
    "widths": ladder.add,
    "targets": add_targets,
}
