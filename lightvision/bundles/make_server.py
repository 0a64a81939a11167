"""An HTTP service and its container."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from lightvision.bundles import laying
from lightvision.bundles.server.service import settings
from lightvision.bundles.winner import Winner


def make(winner: Winner, folder: Path) -> None:
    shutil.copy(winner.file, folder / "model.onnx")
    laying.checks(winner, folder)
    first, second, *_ = sorted(path.name for path in (folder / "pictures").iterdir())
    laying.lay("server", winner, folder, settings=list(_settings()), first=first, second=second)
    laying.runner(folder)


def _settings() -> Iterator[tuple[str, object, str | None]]:
    """As the service's own code has them."""
    for name, field in settings.Settings.model_fields.items():
        yield settings.PREFIX + name.upper(), field.default, field.description
