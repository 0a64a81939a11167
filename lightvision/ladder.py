"""`lightvision bench widths`: one network at many widths, from the command line to a table."""

import argparse
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lightvision import data, study
from stages.core import params, words
from stages.core.datasets import storage
from stages.core.running import files
from stages.core.running.errors import Refusal

WIDTHS = [8, 6, 4, 3, 2, "ternary", 1]


def add(members: Any, action: str) -> None:
    text = (
        "A network in floating point at fewer and fewer bits by calibration alone, otherwise as quantize.method says: "
        "bytes, accuracy and kernels of the files, and their latency in turns, on one thread."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, help=text, description=text, allow_abbrev=False)
    parser.add_argument("network", type=Path, help="a model in floating point, such as models/pruned")
    parser.add_argument(
        "--calibration", type=Path, default=Path("data/calibration"), help="the split to calibrate with"
    )
    parser.add_argument("--judging", type=Path, default=Path("data/val"), help="the split that files answer")
    entry: dict[str, Any] = {"type": _yaml, "metavar": "YAML", "nargs": "+"}
    parser.add_argument("--weights", default=WIDTHS, help="as in quantize.method", **entry)
    parser.add_argument("--rounding", help="as in quantize.method, which has it if not given", **entry)
    parser.add_argument("--seeds", type=int, default=1, help="draws of prepare.calibration_images")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="other files that answer the same pictures")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.set_defaults(run=run)


def run(
    network: Path,
    calibration: Path,
    judging: Path,
    weights: list[Any],
    rounding: list[Any] | None,
    seeds: int,
    beside: list[Path],
    json: Path | None,
) -> int:
    settings = data.settings()
    method = settings.quantize.method
    if not isinstance(method, params.Integer):
        raise Refusal(f"quantize.method {method.name} has no widths: set it to integer")
    methods = dict(_methods(method, weights, rounding or [method.rounding.model_dump()]))
    from lightvision import widths  # torch and Brevitas take seconds

    ladder = widths.Ladder(network, storage.load(calibration), methods, seeds, settings)
    with tempfile.TemporaryDirectory() as scratch:
        found = widths.compare(ladder, beside, storage.load(judging), Path(scratch))
    show(found)
    if json:
        files.write_json(json, found)
    return 0


def _methods(
    method: params.Integer, weights: Iterable[Any], roundings: Iterable[Any]
) -> Iterator[tuple[str, params.Integer]]:
    for bits, rounding in itertools.product(weights, roundings):
        try:
            checked = params.Integer.model_validate(method.model_dump() | {"weights": bits, "rounding": rounding})
        except ValidationError as error:
            raise Refusal(f"weights {bits}, rounding {rounding}: {error.errors()[0]['msg']}") from error
        if isinstance(checked.weights, params.Auto):
            raise Refusal(f"weights {bits}: a budget is for the quantize stage; give numbers of bits")
        yield f"{bits} {study.place(rounding)}", checked


def show(found: Mapping[str, Any]) -> None:
    pictures, first = found["pictures"], found["first"]
    table = Table(
        title=f"{pictures:,} pictures; latency of one on one thread",
        caption=f"share, gained and faster: against float32; time: {first} is 1; integers: products that run as such",
    )
    table.add_column("bits, rounding", overflow="fold")
    for column in ("bytes", "share", "accuracy", "gained, points", "time", "faster", "load, ms", "integers"):
        table.add_column(column, justify="right")
    for name, file in found["files"].items():
        table.add_row(
            name,
            f"{file['bytes']:,}",
            f"{file['share_of_float32']:.1%}",
            words.percent(file["accuracy"]),
            f"{-100 * file['drop']:+.1f} [{-100 * file['drop_high']:+.1f}, {-100 * file['drop_low']:+.1f}]",
            f"{file['times_as_long_as_first']:.2f}",
            f"{file['times_faster_than_float32']:.2f}",
            f"{file['load_milliseconds']:.0f}",
            f"{file['integer_kernels']}/{file['integer_kernels'] + file['float_kernels']}",
        )
    Console().print(table)


def _yaml(text: str) -> Any:
    """As in params.yaml."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text} is not YAML") from error
