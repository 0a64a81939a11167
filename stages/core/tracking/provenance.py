"""Which stages stand behind one that has started: found here, so that a stage opens nothing it does not declare."""

import contextlib
from pathlib import Path

from stages.core import params
from stages.core.running import files, pipeline
from stages.core.running.errors import Refusal
from stages.core.tracking.events import Start


def upstream(start: Start) -> dict[str, str]:
    """The key of every stage upstream; empty keys when the files have changed since the stage began."""
    folder = Path(start.folder)
    if not (folder / "dvc.yaml").is_file():
        return {}
    with contextlib.chdir(folder):
        stages = pipeline.read()
        before = pipeline.upstream(start.stage, stages)
        unknown = {stage.name: "" for stage in before}
        try:
            return unknown | pipeline.keys(before, params.load(Path("params.yaml"))) if _unchanged(start) else unknown
        except (Refusal, OSError):
            return unknown


def _unchanged(start: Start) -> bool:
    if pipeline.state(pipeline.read()) != start.pipeline:
        return False
    paths = {Path(entry.path): entry.digest for entry in start.inputs.values()}
    return all(path.exists() and files.digest(path) == digest for path, digest in paths.items())
