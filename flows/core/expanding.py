"""A commit's own words on points: its params.yaml changed, checked by its own classes; a program of its own.

    python -m flows.core.expanding FOLDER       points as JSON from stdin; digests and texts, or a refusal, to stdout

`FOLDER` is a checkout whose `stages` come before those that are installed, whoever runs this.
"""

import importlib
import json
import os
import sys
from typing import Any


def main() -> None:
    folder = sys.argv[1]
    importlib.import_module("lightvision")  # ours, as whoever asks
    sys.path.insert(0, folder)
    os.chdir(folder)
    from stages.core.running.errors import Refusal

    try:
        print(json.dumps({"points": _expanded(**json.load(sys.stdin))}))
    except Refusal as refusal:
        print(json.dumps({"refusal": str(refusal)}))


def _expanded(points: list[dict[str, Any]], targets: list[str]) -> list[dict[str, Any]]:
    from lightvision import points as of_lightvision

    needed = of_lightvision.needed(targets)
    found = [of_lightvision.point(**point, needed=needed) for point in points]
    texts = [of_lightvision.text(point.sets) for point in found]
    return [
        {"digest": one.digest, "sets": one.sets, "params_text": text} for one, text in zip(found, texts, strict=True)
    ]


if __name__ == "__main__":
    main()
