"""Runs that can be held against each other, wherever they are remembered: what they were asked, what they found."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import choosing
from stages.core.choosing import Candidate
from stages.core.running.errors import Refusal

SHIPPED = "models/shipped"
METRICS = ("evaluate", "export", "benchmark", "convert")


@dataclass(frozen=True)
class Run:
    """`params` by dotted name and `metrics` by stage; what does not belong to the run is in `lacks`, with the reason.

    `fetch` brings a path of the project, as this run made it, into a folder; `get` tells a person how to.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    lacks: Mapping[str, str]
    fetch: Callable[[str, Path], Path]
    get: Callable[[str], str]

    def found(self, stage: str) -> Mapping[str, Any]:
        if stage in self.lacks:
            raise Refusal(f"{self.name}: {self.lacks[stage]}")
        return self.metrics[stage]

    def candidates(self) -> list[Candidate]:
        return choosing.candidates(self.found("benchmark"), self.found("export"))

    @property
    def machine(self) -> str:
        """Whose milliseconds these are."""
        told = self.found("benchmark").get("machine") or {}
        return (
            f"{told.get('cpu', 'unknown')}, {told.get('cores', '?')} cores, ONNX Runtime {told.get('onnxruntime', '?')}"
        )

    @property
    def pictures(self) -> str:
        """Equal where accuracies are of the same val and test pictures: what they are, and how they were split."""
        source = {name: value for name, value in self.params.items() if name == "seed" or name.startswith("prepare.")}
        return json.dumps([self.metrics.get("evaluate", {}).get("test"), source], sort_keys=True)


def once(runs: Iterable[Run]) -> list[Run]:
    """Two runs that measured the same to the last digit are one, told of twice; the first has the better name."""
    kept: dict[str, Run] = {}
    for run in runs:
        kept.setdefault(json.dumps([run.metrics["benchmark"], run.metrics["export"]], sort_keys=True), run)
    return list(kept.values())
