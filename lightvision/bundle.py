"""`lightvision bundle`: the file that keeps to a budget, with all that one kind of device needs to run it."""

import argparse
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightvision.best import add_limits, budgeted
from lightvision.bundles import laying, make_android, make_rpi, make_server, make_web, manifest, winner
from lightvision.bundles.winner import Winner
from lightvision.data import settings
from stages.core.running import files
from stages.core.running.errors import Refusal

ZIP = ".zip"
FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # as a zip counts: the same content is the same bytes

# what fills an empty folder for a kind of device; files common to all come afterwards
BUNDLES: Mapping[str, Callable[..., None]] = {
    "rpi": make_rpi.make,
    "server": make_server.make,
    "web": make_web.make,
    "android": make_android.make,
}


def add(members: Any, action: str) -> None:
    text = (
        "Write a bundle for a kind of device: the file of this workspace that keeps to the limits, or else to "
        "report.budget in params.yaml, and what runs it there. Exit status 1 where no file does."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("kind", choices=sorted(BUNDLES))
    parser.add_argument("--out", type=Path, help="a .zip, or else a folder; lightvision-KIND-NAME.zip if not given")
    parser.add_argument("--model", type=Path, metavar="FILE", help="an exported .onnx file, instead of the best one")
    parser.add_argument("--runtime", type=Path, metavar="FILE", help=f"web: what `npm pack {make_web.RUNTIME}` wrote")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(kind: str, out: Path | None, model: Path | None, runtime: Path | None, **limits: float | None) -> int:
    if runtime and kind != "web":
        raise Refusal(f"--runtime is for web: {kind} carries none")
    budget = budgeted(**limits)
    if model and budget:
        raise Refusal("--model names the file: limits beside it would choose nothing")
    found = winner.given(model) if model else winner.chosen(budget or settings().report.budget)
    if isinstance(found, str):
        print(f"{found}; nothing was written")
        return 1
    target = out or Path(f"lightvision-{kind}-{found.name}{ZIP}")
    write(kind, found, target, **({"runtime": runtime} if runtime else {}))
    print(f"{target}: {found.name} for {kind}: {found.why}")
    print(f"  {accuracy(found)}")
    return 0


def accuracy(found: Winner) -> str:
    """Of val, and of test where it was measured."""
    return "; ".join(manifest.told(name, share) for name, share in found.accuracy.items() if share)


def write(kind: str, found: Winner, target: Path, **given: Path) -> None:
    """Whole or not at all, and never over what is there; `given` are files that the kind carries."""
    if target.exists():
        raise Refusal(f"{target} is there already: remove it, or name another by --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder, partial = (target.with_name(f"{target.name}.{end}.partial") for end in ("folder", "zip"))
    files.remove(folder)
    try:
        folder.mkdir()
        BUNDLES[kind](found, folder, **given)
        laying.licence(folder)
        files.write_json(folder / manifest.FILE, manifest.of(kind, found, folder))
        if target.suffix == ZIP:
            pack(folder, partial)
            files.publish(partial, target)
        else:
            files.publish(folder, target)
    finally:
        files.remove(folder)
        files.remove(partial)


def pack(folder: Path, target: Path) -> None:
    """Sorted and without times, so that the same input is the same bytes; what is executable stays so."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            entry = zipfile.ZipInfo(name, FIRST_DAY)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whose modes are kept
            entry.external_attr = (0o100755 if path.stat().st_mode & 0o100 else 0o100644) << 16
            archive.writestr(entry, path.read_bytes())
