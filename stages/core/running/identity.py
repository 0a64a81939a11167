"""The name of a piece of work: equal keys mean equal code, parameters and inputs."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages.core.running import files, sources


def key(stage: str, inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> str:
    content = {
        "stage": stage,
        "code": sources.digest(f"stages.{stage}"),
        "inputs": {name: files.digest(path) for name, path in inputs.items()},
        "settings": plain(settings),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them."""
    return {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in settings.items()
    }


def commit() -> str:
    """The commit this code was run at, marked when the tree had changes; empty outside git.

    A clone that is made for one job stands on a commit that nobody asked for: LIGHTVISION_COMMIT is the one below it.
    """
    if asked := os.environ.get("LIGHTVISION_COMMIT"):
        return asked
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        cwd=sources.ROOT,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()
