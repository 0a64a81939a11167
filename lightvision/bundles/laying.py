"""The ordinary files of a kind of bundle: copied as they are, but for those that end in .jinja, which are filled in."""

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lightvision.bundles import manifest
from lightvision.bundles.winner import Winner
from stages.core import predicting

HERE = Path(__file__).parent
PICTURES = 4
RUNNER = "lightvision_runner"
FILLED = ".jinja"
UNWANTED = shutil.ignore_patterns("__pycache__", "*.pyc")


def lay(kind: str, winner: Winner, folder: Path, **facts: Any) -> None:
    """`facts` are those that the kind's own files ask for beyond the winner."""
    templates = HERE / kind
    shutil.copytree(templates, folder, ignore=UNWANTED, dirs_exist_ok=True)
    shared = {"winner": winner, "told": manifest.told}
    filling = Environment(  # noqa: S701 - texts, not web pages
        loader=FileSystemLoader(templates), undefined=StrictUndefined, keep_trailing_newline=True
    )
    for path in sorted(folder.rglob(f"*{FILLED}")):
        text = filling.get_template(path.relative_to(folder).as_posix()).render(**shared, **facts)
        path.with_suffix("").write_text(text, encoding="utf-8")
        path.with_suffix("").chmod(path.stat().st_mode)
        path.unlink()


def runner(folder: Path) -> None:
    """The very code that answers `lightvision predict`."""
    [package] = predicting.__path__
    shutil.copytree(package, folder / RUNNER, ignore=UNWANTED)


def licence(folder: Path) -> None:
    text = metadata.distribution("lightvision").read_text("licenses/LICENSE")
    (folder / "LICENSE").write_text(text or "MIT\n", encoding="utf-8")


def checks(winner: Winner, folder: Path) -> None:
    """What was asked of the file here and answered, and the first few pictures as files that a person can look at."""
    told = winner.checks
    np.savez_compressed(folder / "checks.npz", images=told.images, probabilities=told.probabilities)
    (folder / "pictures").mkdir()
    for number, (image, label) in enumerate(zip(told.images[:PICTURES], told.labels, strict=False)):
        name = re.sub(r"\W+", "-", winner.classes[label])
        Image.fromarray(image).save(folder / "pictures" / f"{number:02d}-{name}.png")
