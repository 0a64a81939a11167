"""dvc.yaml tells the truth about the code; the house's imports go one way."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core import params
from stages.core.running import pipeline, sources
from tests import wiring
from tests.wiring import ROOT

STAGES = pipeline.read(ROOT / "dvc.yaml")
ARTIFACTS = ("data/", "models/", "metrics/", "reports/")
MODULES = sorted((ROOT / "stages").rglob("*.py"))


def test_dvc_yaml_tells_the_truth() -> None:
    assert wiring.problems(STAGES) == []


def sabotaged(name: str, **changes: object) -> list[str]:
    return wiring.problems(STAGES | {name: replace(STAGES[name], **changes)})  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_every_missing_dependency_is_seen(name: str) -> None:
    for dep in STAGES[name].deps:
        assert sabotaged(name, deps=STAGES[name].deps - {dep}), dep


@pytest.mark.parametrize("name", STAGES)
def test_every_missing_parameter_is_seen(name: str) -> None:
    for entry in STAGES[name].params:
        assert sabotaged(name, params=tuple(other for other in STAGES[name].params if other != entry)), entry


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("distill", {"deps": STAGES["distill"].deps | {"stages/core/pruning/graph.py"}}),
        ("prune", {"params": (*STAGES["prune"].params, "distill")}),
        ("prune", {"cmd": STAGES["prune"].cmd.replace("--val data/val", "--val data/test")}),
        ("prune", {"cmd": STAGES["prune"].cmd.replace("stages prune", "stages distill")}),
        ("prune", {"cmd": STAGES["prune"].cmd.replace("--student models/student ", "")}),
        ("export", {"outs": STAGES["export"].outs | {"models/other"}}),
    ],
)
def test_every_other_lie_is_seen(name: str, changes: dict[str, object]) -> None:
    assert sabotaged(name, **changes)


@pytest.mark.parametrize("name", sorted(set(STAGES) - wiring.JUDGES - {"prepare"}))
def test_the_test_split_reaches_only_those_who_judge(name: str) -> None:
    for leak in (wiring.TEST_SPLIT, "data"):
        assert f"{name}: reads {leak}, and with it the test split" in sabotaged(name, deps=STAGES[name].deps | {leak})


def test_a_stage_without_a_module_is_seen() -> None:
    assert wiring.problems({name: stage for name, stage in STAGES.items() if name != "benchmark"})


def test_an_import_inside_a_function_is_followed() -> None:
    assert Path("stages/core/quantized/integers.py") in sources.of("stages.evaluate")


def test_nobody_but_the_command_reads_paths_of_artifacts() -> None:
    for path in MODULES:
        hidden = {text for text in wiring.strings(path) if text.startswith(ARTIFACTS)}
        assert not hidden, f"{path} names {hidden}: paths come in as arguments"


def test_imports_go_one_way() -> None:
    verbs = {f"stages.{name}" for name in STAGES}
    for path in MODULES:
        found = wiring.imports(path)
        where = path.relative_to(ROOT)
        assert not found & verbs, f"{where} imports a stage"
        assert not {name for name in found if name.split(".")[0] in {"flows", "prefect", "dvc"}}, where
        if where.parts[:3] != ("stages", "core", "tracking"):
            assert not {name for name in found if name.split(".")[0] == "mlflow"}, where


def test_settings_are_typed_as_in_params() -> None:
    for name in STAGES:
        module = __import__(f"stages.{name}", fromlist=["main"])
        for parameter in inspect.signature(module.main, eval_str=True).parameters.values():
            if parameter.name in params.Params.model_fields:
                field = params.Params.model_fields[parameter.name].annotation
                assert parameter.annotation in (field, int), f"{name}.{parameter.name}"


def test_params_yaml_is_complete() -> None:
    assert set(YAML(typ="safe").load(ROOT / "params.yaml")) == set(params.Params.model_fields)
