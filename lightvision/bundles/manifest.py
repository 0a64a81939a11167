"""bundle.json: what is in a bundle, where it comes from, and what was measured of it."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lightvision.bundles.winner import Winner
from stages.core import words
from stages.core.running import files

FILE = "bundle.json"
PACKAGES = ("lightvision", "onnx", "onnxruntime", "numpy", "pillow")  # that the file was proved with


def of(kind: str, winner: Winner, folder: Path) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": winner.name,
        "why": winner.why,
        "model": {
            "bytes": winner.bytes,
            "sha256": winner.sha256,
            "network": winner.told["model"],
            "weights": winner.told.get("weights"),
        },
        "dataset": winner.told["dataset"],
        "commit": winner.commit,
        "classes": list(winner.classes),
        "image_size": winner.image_size,
        "fit": winner.fit,
        "mean": list(winner.mean),
        "std": list(winner.std),
        "accuracy": dict(winner.accuracy),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "licence": "MIT, of the code; the pictures that the weights were learnt from have their own",
        "files": {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.digest(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }


def told(split: str, share: Mapping[str, float]) -> str:
    interval = words.interval(share["low"], share["high"])
    return f"{words.percent(share['accuracy'])} {interval} of {share['pictures']:,} pictures of {split} right"
