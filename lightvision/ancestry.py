"""What `lightvision lineage` found, as a person reads it: short lines that no narrow terminal folds."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from lightvision import experiments
from stages.core import words

CHECKED = {True: ("verified", "green"), False: ("DIFFERS", "bold red"), None: ("unknown", "yellow")}
Line = tuple[str, str]


def show(found: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    for title, lines in sections(found):
        console.print(Text(title, "bold"), soft_wrap=True)
        width = max((len(name) for name, _ in lines), default=0)
        for name, value in lines:
            style = dict(CHECKED.values()).get(name, "")
            text = Text(f"  {name:<{width}}  ", style).append(value, "default")
            text.rstrip()
            console.print(text, soft_wrap=True)


def sections(found: Mapping[str, Any]) -> Iterator[tuple[str, list[Line]]]:
    file = found["file"]
    yield (
        found["asked"],
        [
            ("sha256", file["sha256"] or "unknown"),
            ("md5", file["md5"]),
            ("bytes", words.whole(file["bytes"])),
        ],
    )
    if not found["recorded"]:
        yield "recorded nowhere: no dvc.lock of any commit or experiment here tells of it", []
        yield "it says of itself", _flat(found["says of itself"]) or [("nothing", "")]
        yield from _remembered(found["mlflow"])
        return
    made = found["made"]
    yield f"made by {made['stage']}", [(name, str(made[name])) for name in MADE if made[name]]
    if found["chain"]:
        yield "from", [(model["model"], _model(model)) for model in found["chain"]]
    yield "data", list(_data(found["data"]))
    changed = [(name, f"{usual} -> {value}") for name, (usual, value) in found["changed"].items()]
    count = len(found["parameters"])
    yield (
        (f"parameters: {len(changed)} of {count}" if changed else f"parameters: all {count}")
        + (" are not as in params.yaml of the baseline" if changed else " as in params.yaml of the commit"),
        changed,
    )
    if found["gates"]:
        yield "gates that it passed", _flat(found["gates"]["limits"])
    yield "checks", [(CHECKED[holds][0], what) for what, holds in found["checks"].items()]
    yield from _remembered(found["mlflow"])
    yield "the same again", [(command, "") for command in found["commands"]]
    if made["baseline"]:
        yield "all its stages anew, and compared", [(f"lightvision reproduce {shlex.quote(found['asked'])}", "")]


MADE = ("path", "commit", "experiment", "baseline", "dvc.lock", "other code")


def _model(model: Mapping[str, Any]) -> str:
    card = (
        f"model.json {model['sha256'][:16]}"
        if model["sha256"]
        else "its files are neither in the cache nor in a remote"
    )
    return f"by {model['stage']}, md5 {model['md5']}, {card}"


def _data(data: Mapping[str, Any]) -> Iterator[Line]:
    counts = data.get("pictures", {})
    yield "name", data["name"]
    if counts:
        yield "pictures", ", ".join(f"{words.whole(count)} {name}" for name, count in counts.items())
    if "manifest sha256" in data:
        yield "manifest", f"sha256 {data['manifest sha256']}"
    yield from data["md5"].items()


def _remembered(memory: Mapping[str, Any]) -> Iterator[tuple[str, list[Line]]]:
    if "unknown" in memory:
        yield f"MLflow: {memory['unknown']}", []
        return
    lines = [(one["model"], _version(one)) for one in memory["versions"]]
    lines += [(f"run {run}", _run(told)) for run, told in memory["runs"].items()]
    yield "MLflow", lines
    for pipeline, stages in _pipelines(memory["runs"]).items():
        yield f"MLflow's run of the pipeline, {pipeline}", stages


def _version(version: Mapping[str, Any]) -> str:
    tags = version["tags"]
    accuracy = f"{words.percent(float(tags['accuracy']))} on val" if "accuracy" in tags else ""
    return ", ".join(filter(None, (*version["aliases"], accuracy)))


def _run(told: Mapping[str, Any]) -> str:
    names = {"lightvision.stage": "", "host": "on ", "experiment": "experiment ", "flow_run": "Prefect's run "}
    return ", ".join(f"{before}{told[name]}" for name, before in names.items() if told.get(name))


def _pipelines(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Line]]:
    """Each stage was executed by the run that is named, or by an earlier one whose result was taken."""
    prefix = "stage."
    return {
        told["pipeline"]: [
            (name.removeprefix(prefix), " by run ".join(value.split(":", 1)))
            for name, value in told.items()
            if name.startswith(prefix)
        ]
        for told in runs.values()
    }


def _flat(content: Mapping[str, Any]) -> list[Line]:
    flat = experiments.flat(dict(content)).items()
    return [(name, value if isinstance(value, str) else json.dumps(value, default=str)) for name, value in flat]
