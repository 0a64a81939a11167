"""Files of other runs, beside this run's own."""

from collections.abc import Mapping
from typing import Any

from stages.core.reporting.findings import SHIPPED
from stages.core.reporting.sweeps import Sweep


def points(found: Mapping[str, Sweep], test: str) -> list[dict[str, Any]]:
    """Of sweeps and ablations, once each, where the same test pictures judged them.

    Their latency was taken at another time, and is not held beside this run's.
    """
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for sweep in found.values():
        for run in sweep.runs:
            for name in SHIPPED if run.test == test else ():
                file = f"benchmark.files.{name}"
                if {f"{file}.accuracy", f"{file}.bytes"} <= run.metrics.keys():
                    told[run.rev, name] = {
                        "network": name,
                        "file": f"{name}.onnx",
                        "run": f"{run.row}, seed {run.seed}",
                        "accuracy": run.metrics[f"{file}.accuracy"] * 100,
                        "megabytes": run.metrics[f"{file}.bytes"] / 1e6,
                    }
    return list(told.values())
