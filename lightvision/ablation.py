"""`lightvision ablation`: what a part of the pipeline is worth, by leaving it out, over several seeds."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lightvision import data, experiments, gathering, points
from lightvision.comparing import Question, compare
from lightvision.gathering import Compare, Plan
from lightvision.sweep import add_shared
from stages.core.reporting.studies import Metric
from stages.core.reporting.sweeps import Comparison, Run
from stages.core.running import pipeline
from stages.core.running.errors import Refusal

Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Row(Strict):
    """`set` is what the row changes in params.yaml, as `dvc exp run -S`."""

    name: Text
    set: list[Text]


class Ablation(Strict):
    """Each row against the baseline row, by seed, in each metric; the margin is of accuracies, as a share."""

    title: Text
    about: Text
    seeds: Annotated[int, Field(ge=1)]
    baseline: Text
    rows: Annotated[list[Row], Field(min_length=2)]
    metrics: Annotated[list[Text], Field(min_length=1)]
    margin: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Ablation":
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"two rows have one name: {', '.join(names)}")
        if self.baseline not in names:
            raise ValueError(f"baseline {self.baseline!r} is no row; rows are {', '.join(names)}")
        if unknown := [metric for metric in self.metrics if not experiments.makers(metric)]:
            raise ValueError(
                f"no stage writes metrics/{unknown[0].partition('.')[0]}.json, as metrics: {unknown[0]} wants it"
            )
        return self


TEXT = "Run what is not there yet of an ablation, and compare each row with the baseline row, by seed."


def add(members: Any, action: str) -> None:
    parser: argparse.ArgumentParser = members.add_parser(action, description=TEXT, allow_abbrev=False)
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="such as studies/distillation.yaml; its name is that of the results")
    parser.add_argument("--seeds", type=int, help="instead of the file's")
    add_shared(parser)


def run(dry: bool, **asked: Any) -> int:
    return gathering.carry_out(*plan(**asked), dry)


def plan(file: Path, seeds: int | None, sets: list[str]) -> tuple[Plan, Compare]:
    gathering.check_name(file.stem)
    asked = read(file)
    count = seeds if seeds is not None else asked.seeds
    if count < 1:
        raise Refusal("--seeds count from 1")
    targets = last_stages(asked.metrics)
    stages = points.needed(targets)
    planned = Plan(
        name=file.stem,
        kind="ablation",
        title=asked.title,
        about=asked.about,
        points=[
            points.point(row.name, seed, None, [*sets, *row.set], stages) for row in asked.rows for seed in range(count)
        ],
        targets=targets,
        confidence=data.settings().evaluate.confidence,
    )
    return planned, lambda runs: comparisons(runs, asked, planned.confidence)


def read(file: Path) -> Ablation:
    if not file.is_file():
        raise Refusal(f"{file} is no file that is there")
    try:
        return Ablation.model_validate(YAML(typ="safe").load(file))
    except YAMLError as error:
        raise Refusal(f"{file} is not YAML: {error}") from error
    except ValidationError as error:
        raise Refusal("; ".join(f"{file}: {_explain(dict(detail))}" for detail in error.errors())) from error


def _explain(detail: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = Row if detail["loc"][0] == "rows" else Ablation
        return f"{where} is not known here; allowed: {', '.join(known.model_fields)}"
    return ": ".join(filter(None, (where, detail["msg"].removeprefix("Value error, "))))


def last_stages(metrics: Sequence[str]) -> list[str]:
    """The stages that write the metrics, without those that others of them need anyway."""
    stages = pipeline.read()
    makers = {experiments.makers(metric)[0].name for metric in metrics}
    before = {stage.name for name in makers for stage in pipeline.upstream(name, stages)}
    return [name for name in stages if name in makers - before]


def comparisons(runs: Sequence[Run], asked: Ablation, confidence: float) -> list[Comparison]:
    """Rows against the baseline are one family in each metric."""
    found: list[Comparison] = []
    for metric in asked.metrics:
        series = {row.name: gathering.values(runs, metric, row.name) for row in asked.rows}
        measured = {name: values for name, values in series.items() if values}
        if not measured:
            raise Refusal(f"no row has a number for {metric}: look for its name in `dvc metrics show`")
        others = [name for name in measured if name != asked.baseline] if asked.baseline in measured else []
        share = Metric(metric).is_share
        question = Question(metric, share, asked.margin if share else None, confidence)
        found.append(compare(question, measured, [(name, asked.baseline) for name in others]))
    return found
