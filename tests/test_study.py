"""Studies: what DVC's experiments truly hold becomes points, and nothing else does."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert
from ruamel.yaml import YAML

from lightvision import __main__ as command
from lightvision import experiments, study
from stages.core.reporting import charts, studies, study_charts
from stages.core.reporting.studies import Metric, Study
from stages.core.running import files
from stages.core.running.errors import Refusal

METHOD = {"name": "hinton", "temperature": 4.0, "alpha": 0.9}
STUDENT = {"name": "residual_cnn", "blocks": 6, "hidden_layers": 1}
PIPELINE = """
stages:
  distill:
    cmd: python -m stages distill --student models/student --metrics metrics/distill.json
    params: [distill, seed]
    deps: [distill.py]
    outs: [models/student]
    metrics: [metrics/distill.json: {cache: false}]
  evaluate:
    cmd: python -m stages evaluate --student models/student --metrics metrics/evaluate.json
    params: [evaluate]
    deps: [evaluate.py, models/student]
    metrics: [metrics/evaluate.json: {cache: false}]
"""
T, A, GAIN = "distill.method.temperature", "distill.method.alpha", "distill.gain_on_val"


def entry(gain: float | None, rev: str = "", changed: Mapping[str, Any] | None = None, **method: Any) -> dict[str, Any]:
    """As `dvc exp show --json` tells a baseline or an experiment's revision."""
    params: dict[str, Any] = {"seed": 0, "evaluate": {"confidence": 0.95}}
    params["distill"] = {"student": STUDENT, "method": METHOD | method}
    found: dict[str, Any] = {"student": {"val_accuracy": 0.9}}
    if gain is not None:
        found |= {"gain_on_val": gain, "gain_low": gain - 0.01, "gain_high": gain + 0.01, "verdict": "not shown"}
    data = {
        "rev": rev,
        "params": {"params.yaml": {"data": params | dict(changed or {})}},
        "metrics": {"metrics/distill.json": {"data": found}},
    }
    return {"rev": rev, "name": None, "data": data, "error": None}


def made(name: str, gain: float | None, state: str = "success", **others: Any) -> dict[str, Any]:
    """Of an experiment."""
    return {"revs": [entry(gain, f"sha-{name}", **others)], "executor": {"state": state}, "name": name}


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`lightvision study test` over experiments that are given, each of them up to date."""
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "is_current", lambda row, stages: True)

    def run(*made: dict[str, Any], words: tuple[str, ...] = ("--x", T), value: str = GAIN) -> dict[str, Any]:
        master = entry(0.004, "d2f394a7") | {"name": "master", "experiments": list(made)}
        shown = [entry(0.004, "workspace") | {"experiments": None}, master]
        answer = subprocess.CompletedProcess([], 0, stdout=json.dumps(shown), stderr="")
        monkeypatch.setattr(experiments.subprocess, "run", lambda *_, **__: answer)
        monkeypatch.setattr(sys, "argv", ["lightvision", "study", "test", *words, "--value", value])
        with pytest.raises(SystemExit) as ended:
            command.main()
        if ended.value.code:
            raise Refusal(str(ended.value.code))
        return files.read_json(tmp_path / "metrics/studies/test.json")

    return run


def places(found: dict[str, Any]) -> dict[str, Any]:
    return {point["experiment"]: tuple(point["at"].values()) for point in found["points"]}


def test_finished_experiments_and_the_baseline_are_points(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """DVC gives the others the metrics of their baseline; the workspace is the baseline once more."""
    found = ask(
        made("hot", 0.02, temperature=8.0),
        made("cold", -0.03, temperature=1.0),
        made("waiting", 0.004, "queued", temperature=2.0),
        made("broken", 0.004, "failed", temperature=3.0),
        made("busy", 0.004, "running", temperature=5.0),
    )
    assert places(found) == {"hot": (8.0,), "cold": (1.0,), "master": (4.0,)}
    told = capsys.readouterr().out
    assert "not counted: 1 queued (waiting), 1 failed (broken), 1 running (busy)\n" in told
    assert found | {"points": [], "machine": {}, "date": ""} == {
        "schema": 2,
        "title": f"{GAIN} by {T}",
        "x": T,
        "y": None,
        "values": [GAIN],
        "points": [],
        "commit": "d2f394a7",
        "machine": {},
        "date": "",
    }
    assert found["machine"]["cores"]
    hot = next(point for point in found["points"] if point["experiment"] == "hot")
    assert hot["found"] == {GAIN: {"value": 0.02, "low": 0.01, "high": 0.03, "verdict": "not shown"}}


def test_an_experiment_that_ran_in_the_workspace_is_finished(ask: Ask) -> None:
    assert "here" in places(ask(made("here", 0.02, temperature=8.0) | {"executor": None}))


def test_two_axes_are_a_heat_map(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    grid = [made(f"e{t:g}-{a}", t * a / 100, temperature=t, alpha=a) for t in (2.0, 10.0) for a in (0.5, 0.9)]
    found = ask(*grid, words=("--x", T, "--y", A, "--title", "Heat"))
    assert found["title"] == "Heat"
    assert len(found["points"]) == 5
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["0.9", "(+1.8)", "(+0.4)", "(+9.0)"],
        ["0.5", "(+1.0)", "", "(+5.0)"],
    ]
    table = pd.read_csv("metrics/studies/test.csv")
    assert table[T].tolist() == [2.0, 2.0, 4.0, 10.0, 10.0]
    assert table["n"].tolist() == [1] * 5


def test_a_whole_method_or_network_is_a_place_by_name_and_numbers(ask: Ask) -> None:
    other = entry(0.0)["data"]["params"]["params.yaml"]["data"]["distill"]
    dkd = {"distill": other | {"method": {"name": "dkd", "alpha": 1.0, "layers": ["a", "b"], "peer": STUDENT}}}
    found = ask(made("dkd", 0.02, changed=dkd), words=("--x", "distill.method"))
    said = "dkd: alpha 1, layers a + b, peer residual_cnn: blocks 6, hidden_layers 1"
    assert places(found) == {"dkd": (said,), "master": ("hinton: temperature 4, alpha 0.9",)}


def test_what_is_missing_stops_the_study_and_names_what_is_near(ask: Ask) -> None:
    done = made("done", 0.02, temperature=8.0)
    with pytest.raises(Refusal, match="no experiment is finished"):
        ask(made("waiting", 0.004, "queued", temperature=2.0))
    with pytest.raises(
        Refusal, match=r"no finished experiment has the parameter distill.metod; near it: distill.method"
    ):
        ask(done, words=("--x", "distill.metod"))
    with pytest.raises(Refusal, match=r"has the metric distill.gain; near it: .*distill.gain_on_val"):
        ask(done, value="distill.gain")
    with pytest.raises(Refusal, match="both"):
        ask(done, words=("--x", T, "--y", T))
    with pytest.raises(Refusal, match="needs two points"):
        ask(made("again", 0.004, temperature=4.0))
    assert not Path("metrics").exists()


def test_points_that_differ_in_more_than_the_axes_are_refused(ask: Ask) -> None:
    mixed = made("one", 0.02, temperature=8.0), made("two", 0.03, temperature=8.0, alpha=0.5)
    with pytest.raises(Refusal, match=rf"differ in more than the axes: {A};.*--where {A}="):
        ask(*mixed)
    assert places(ask(*mixed, words=("--x", T, "--where", f"{A}=0.9"))) == {"one": (8.0,), "master": (4.0,)}
    found = ask(*mixed, words=("--x", T, "--mixed"))
    assert places(found) == {"one": (8.0,), "two": (8.0,), "master": (4.0,)}
    [_, cell] = studies.cells(Study.model_validate_json(json.dumps(found)), Metric(GAIN))
    assert (cell.n, cell.value, cell.low, cell.shown) == (2, 0.025, None, False)
    assert cell.sd == pytest.approx(0.01 / 2**0.5)
    assert cell.verdict == "2 not shown"


def test_a_baseline_made_for_something_else_is_left_out(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(*(made(f"e{t:g}", t / 100, temperature=t, alpha=0.5) for t in (1.0, 2.0)))
    assert places(found) == {"e1": (1.0,), "e2": (2.0,)}
    assert "left out, with other parameters than the experiments: master, workspace" in capsys.readouterr().out


def test_parameters_of_later_stages_do_not_matter(ask: Ask) -> None:
    found = ask(made("one", 0.02, temperature=8.0, changed={"evaluate": {"confidence": 0.9}}))
    assert len(found["points"]) == 2


ACCURACY, SCRATCH = "distill.student.val_accuracy", "distill.control.val_accuracy"


def pair(name: str, temperature: float, student: float, control: float | None) -> dict[str, Any]:
    """An experiment whose control is null, if it has none."""
    row = made(name, 0.0, temperature=temperature)
    twin = None if control is None else {"val_accuracy": control}
    found = row["revs"][0]["data"]["metrics"]["metrics/distill.json"]["data"]
    found |= {"student": {"val_accuracy": student}, "control": twin}
    return row


def test_several_values_over_one_axis_are_found_where_they_are(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """The baseline has no control at all, one experiment has null in its place."""
    both = pair("both", 2.0, 0.8, 0.7), pair("alone", 8.0, 0.6, None)
    found = ask(*both, words=("--x", T, "--value", ACCURACY), value=SCRATCH)
    assert found["values"] == [ACCURACY, SCRATCH]
    assert found["title"] == f"student val accuracy and control val accuracy by {T}"
    accuracies = {
        point["experiment"]: {name: one["value"] for name, one in point["found"].items()} for point in found["points"]
    }
    assert accuracies == {"both": {ACCURACY: 0.8, SCRATCH: 0.7}, "alone": {ACCURACY: 0.6}, "master": {ACCURACY: 0.9}}
    shown = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert rows == [["2", "80.0 %", "70.0 %"], ["4", "90.0 %", ""], ["8", "60.0 %", ""]]
    table = pd.read_csv("metrics/studies/test.csv")
    assert table["metric"].tolist() == [ACCURACY] * 3 + [SCRATCH]
    assert table["value"].tolist() == [0.8, 0.9, 0.6, 0.7]


@pytest.mark.parametrize(
    ("words", "value", "message"),
    [
        (("--x", T, "--y", A, "--value", ACCURACY), SCRATCH, "two axes show one value, and here are 2: leave out --y"),
        (("--x", T, "--value", ACCURACY), ACCURACY, "each once, can be told apart"),
        (("--x", T, "--value", ACCURACY), GAIN, f"one axis has one unit.*{ACCURACY} in %, {GAIN} in points"),
        (("--x", T), "distill.verdict", "none of the experiments .* a number for distill.verdict"),
    ],
)
def test_values_that_cannot_stand_together_are_refused(
    words: tuple[str, ...], value: str, message: str, ask: Ask
) -> None:
    with pytest.raises(Refusal, match=message):
        ask(pair("one", 2.0, 0.8, 0.7), pair("two", 8.0, 0.7, 0.6), words=words, value=value)


def test_a_plain_gain_has_its_interval_beside_it(ask: Ask) -> None:
    row = made("hot", 0.02, temperature=8.0)
    against = {"against": {"uncut": {"gain": 0.02, "low": 0.01, "high": 0.04, "verdict": "helps"}}}
    row["revs"][0]["data"]["metrics"]["metrics/distill.json"]["data"] |= against
    again = made("cold", 0.02, temperature=2.0)
    again["revs"][0]["data"]["metrics"]["metrics/distill.json"]["data"] |= against
    name = "distill.against.uncut.gain"
    hot, _ = ask(row, again, value=name)["points"]
    assert hot["found"] == {name: {"value": 0.02, "low": 0.01, "high": 0.04, "verdict": "helps"}}


def test_experiments_without_the_axis_or_the_value_are_named(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    other = entry(0.0)["data"]["params"]["params.yaml"]["data"]["distill"]
    fitnet = {"distill": other | {"method": {"name": "fitnet", "alpha": 0.9}}}
    found = ask(
        made("alone", None, temperature=2.0), made("fitnet", 0.1, changed=fitnet), made("hot", 0.2, temperature=8.0)
    )
    assert places(found) == {"hot": (8.0,), "master": (4.0,)}
    assert f"left out, without {T} or {GAIN}: alone, fitnet" in capsys.readouterr().out


def test_one_run_seen_twice_is_one_point(ask: Ask) -> None:
    twice = [made(name, 0.02, temperature=8.0) for name in ("one", "two")]
    other = made("three", 0.03, temperature=8.0)
    assert places(ask(*twice, other)) == {"one": (8.0,), "three": (8.0,), "master": (4.0,)}


@pytest.mark.parametrize(
    "words", [("study", "../x", "--x", T, "--value", GAIN), ("study", "x", "--x", T, "--value", GAIN)]
)
def test_outside_of_a_project_and_with_a_bad_name_it_is_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightvision", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    told = str(ended.value.code)
    assert "not '../x'" in told or "not inside of a DVC repository" in told
    assert "\n" not in told


# -------------------------------------------------------------------------------------------------- is it current


LOCK: dict[str, Any] = {
    "distill": {
        "params": {"params.yaml": {"distill": {"method": METHOD}, "seed": 0}},
        "outs": [{"path": "models/student", "md5": "s"}, {"path": "metrics/distill.json", "md5": "m"}],
    },
    "evaluate": {
        "params": {"params.yaml": {"evaluate": {"confidence": 0.95}}},
        "deps": [{"path": "evaluate.py", "md5": "e"}, {"path": "models/student", "md5": "s"}],
    },
}


@pytest.mark.parametrize(
    ("path", "value", "current"),
    [
        ((), None, (True, True)),
        (("distill", "params", "params.yaml", "seed"), 1, (False, False)),
        (("distill", "outs", 0, "md5"), "another", (True, False)),
        (("evaluate", "params", "params.yaml", "evaluate"), {"confidence": 0.9}, (True, False)),
        (("evaluate", "deps", 0, "md5"), "another", (True, True)),
        (("evaluate",), {}, (True, False)),
        (("distill",), {}, (False, False)),
    ],
)
def test_a_metric_is_current_if_all_before_it_ran_with_these_parameters(
    path: tuple[Any, ...], value: Any, current: tuple[bool, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(PIPELINE)
    lock = json.loads(json.dumps(LOCK))
    place = lock
    for part in path[:-1]:
        place = place[part]
    if path:
        place[path[-1]] = value
    monkeypatch.setattr(experiments, "locked", lambda rev: lock)
    params = {"distill": {"method": METHOD}, "seed": 0, "evaluate": {"confidence": 0.95}}
    row = experiments.Row("one", "", "success", False, params, {})
    metrics = ("distill.gain_on_val", "evaluate.student.accuracy")
    assert tuple(experiments.is_current(row, experiments.makers(metric)) for metric in metrics) == current


def test_a_metric_that_no_stage_writes_has_no_past() -> None:
    assert experiments.makers("elsewhere.accuracy") == []


# ------------------------------------------------------------------------------------------------ on the page


def told(points: list[tuple[Any, float, float | None]], value: str = GAIN, y: str | None = None) -> Study:
    """Points as (place, value, half the width of the interval)."""
    rows = [
        {"experiment": f"e{n}", "at": dict(zip(("x", "y"), at if y else (at,), strict=False)), "value": found}
        | {"low": half and found - half, "high": half and found + half, "verdict": None}
        for n, (at, found, half) in enumerate(points)
    ]
    facts = {
        "schema": 1,
        "title": "A <study>",
        "x": "x",
        "y": y,
        "value": value,
        "commit": "c",
        "machine": {"cpu": "C"},
    }
    return Study.model_validate(facts | {"date": "2026-01-02", "points": rows})


def test_a_gain_whose_interval_holds_zero_or_that_has_none_is_not_shown() -> None:
    study = told([(1, 0.02, 0.01), (2, -0.02, 0.01), (3, 0.01, 0.02), (4, 0.05, None), (5, 0.01, 0.01)])
    assert [cell.verdict for cell in studies.cells(study, *study.metrics)] == [
        "helps",
        "hurts",
        "not shown",
        "not shown",
        "not shown",
    ]
    rows = study_charts.rows(studies.cells(study, *study.metrics), *study.metrics)
    assert [row["note"] for row in rows] == ["", "", "not shown", "not shown", "not shown"]
    assert [row["colour"] for row in rows] == ["var(--right)", "var(--wrong)", *["var(--right)"] * 3]
    assert rows[0]["depth"] == rows[1]["depth"] > rows[2]["depth"]
    assert [row["text"] for row in rows] == ["+2.0", "−2.0", "+1.0", "+5.0", "+1.0"]


def test_places_are_in_the_order_a_person_expects() -> None:
    places = ["net: blocks 10", 8, "net: blocks 2", 0.5, "net: blocks 2.5", "a"]
    study = told([(place, 0.1, None) for place in places])
    assert studies.along(study, "x") == [0.5, 8, "a", "net: blocks 2", "net: blocks 2.5", "net: blocks 10"]
    assert [cell.at[0] for cell in studies.cells(study, *study.metrics)] == studies.along(study, "x")


@pytest.mark.parametrize(
    ("value", "said", "unit"),
    [
        (GAIN, "+1.3", f"{GAIN}, points"),
        ("evaluate.student.accuracy", "1.3 %", "evaluate.student.accuracy, %"),
        ("distill.student.val_loss", "0.013", "distill.student.val_loss"),
    ],
)
def test_values_are_told_in_their_unit(value: str, said: str, unit: str) -> None:
    assert studies.said(0.013, Metric(value)).replace("\N{NO-BREAK SPACE}", " ") == said
    assert Metric(value).unit == unit


@pytest.mark.parametrize("value", [GAIN, "evaluate.student.accuracy"])
@pytest.mark.parametrize("y", [None, "y"])
def test_every_chart_of_a_study_is_valid_and_needs_no_network(value: str, y: str | None) -> None:
    points = [((f"net {a}", b), (a - b) / 100, 0.01 if b else None) for a in range(3) for b in range(2)]
    study = told([(at if y else at[0], found, half) for at, found, half in points], value, y)
    drawn = charts.specification(study_charts.draw(study))
    assert vl_convert.vegalite_to_vega(drawn)["marks"]
    assert "http" not in json.dumps(drawn)
    assert "null" not in json.dumps(
        [row for layer in drawn["layer"] for row in layer.get("data", {}).get("values", [])]
    )


CURVES = {
    "schema": 2,
    "title": "Curves",
    "x": "x",
    "y": None,
    "values": ["prune.val_accuracy", "prune.controls.from-scratch.val_accuracy"],
    "commit": "c",
    "machine": {"cpu": "C"},
    "date": "2026-01-02",
}


def curves(*places: studies.Place) -> Study:
    """The last place has no control."""
    whole, scratch = CURVES["values"]
    found = {"low": None, "high": None, "verdict": None}
    points = [
        {"experiment": f"e{n}", "at": {"x": place}}
        | {"found": {name: found | {"value": 0.9 - n / 10 - less} for name, less in ((whole, 0), (scratch, 0.05))}}
        for n, place in enumerate(places)
    ]
    del points[-1]["found"][scratch]
    return Study.model_validate(CURVES | {"points": points})


@pytest.mark.parametrize(("places", "line"), [((0.5, 0.25, 0.75), True), (("by <norm>", "by scan"), False)])
def test_several_values_are_lines_where_the_axis_counts(places: tuple[studies.Place, ...], line: bool) -> None:
    """Between names there is nothing to draw a line through."""
    study = curves(*places)
    drawn = charts.specification(study_charts.draw(study))
    rows = drawn["data"]["values"]
    names = ["val accuracy", "controls from scratch val accuracy"]
    assert studies.legend(study.values) == names
    assert {(row["metric"], row["place"]) for row in rows} == {(name, one) for name in names for one in places} - {
        (names[1], places[-1])
    }
    first = next(row for row in rows if (row["metric"], row["place"]) == (names[1], places[0]))
    assert (first["value"], first["text"]) == (pytest.approx(85), "85.0\N{NO-BREAK SPACE}%")
    assert ("line" in {layer["mark"]["type"] for layer in drawn["layer"]}) == line
    assert drawn["layer"][-1]["encoding"]["x"]["type"] == ("quantitative" if line else "nominal")
    assert vl_convert.vegalite_to_vega(drawn)["marks"]


def test_a_broken_study_stops_the_report(tmp_path: Path) -> None:
    good = told([(1, 0.1, None)]).model_dump(by_alias=True)
    files.write_json(tmp_path / "good.json", good)
    (tmp_path / "README.md").write_text("not a study")
    assert list(studies.read(tmp_path)) == ["good"]
    changes = {
        "schema": {"schema": 3},
        "schema 1 lacks 'value'": {"schema": 1},
        "points": {"points": []},
        "other axes": {"x": "z"},
        "each once": {"values": [GAIN, GAIN]},
        "one axis has one unit": {"values": [GAIN, "a.b"]},
    }
    for message, change in changes.items():
        files.write_json(tmp_path / "bad.json", good | change)
        with pytest.raises(Refusal, match=message):
            studies.read(tmp_path)


# ------------------------------------------------------------------------------------------------ DVC itself


DISTILL = """
import json, os, pathlib, sys
from ruamel.yaml import YAML

distill = YAML(typ="safe").load(pathlib.Path("params.yaml"))["distill"]
method = distill["method"]
if method["temperature"] == 9:
    sys.exit("as asked")
gain = (method["temperature"] - 3) / 100
os.makedirs("models", exist_ok=True)
pathlib.Path("models/student").write_text(str(gain))
found = {"gain_on_val": gain, "gain_low": gain - 0.015, "gain_high": gain + 0.015, "verdict": "helps", "control": None}
pathlib.Path("metrics/distill.json").write_text(json.dumps(found))
"""
EVALUATE = """
import json, pathlib
accuracy = 0.5 + float(pathlib.Path("models/student").read_text())
pathlib.Path("metrics/evaluate.json").write_text(json.dumps({"student": {"accuracy": accuracy}}))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of git and DVC with two stages that take no time, once run and committed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "locked", experiments.locked.__wrapped__)
    Path("distill.py").write_text(DISTILL)
    Path("evaluate.py").write_text(EVALUATE)
    text = PIPELINE.replace("-m stages distill", "distill.py").replace("-m stages evaluate", "evaluate.py")
    Path("dvc.yaml").write_text(text.replace("python", sys.executable))
    Path(".gitignore").write_text("/models\n")
    Path("metrics").mkdir()
    Path("metrics/README.md").touch()
    with Path("params.yaml").open("w") as stream:
        YAML().dump(
            {"seed": 0, "distill": {"student": STUDENT, "method": METHOD}, "evaluate": {"confidence": 0.95}}, stream
        )
    shell("git", "init", "-q")
    shell("git", "config", "user.email", "a@b.c")
    shell("git", "config", "user.name", "n")
    dvc("init", "-q")
    dvc("repro", "-q")
    shell("git", "add", "-A")
    shell("git", "commit", "-qm", "first")
    return tmp_path


def shell(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def dvc(*words: str) -> None:
    shell(sys.executable, "-m", "dvc", *words)


@pytest.mark.slow
def test_what_dvc_really_says_becomes_points(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dvc("exp", "run", "-q", "--queue", "-S", f"{T}=2.0,9")
    swapped = "+distill.method={name: dkd, temperature: 7.0, beta: 2.0}"
    dvc("exp", "run", "-q", "--queue", "-n", "swapped", "-S", "~distill.method", "-S", swapped)
    subprocess.run([sys.executable, "-m", "dvc", "exp", "run", "-q", "--run-all"], capture_output=True)
    dvc("exp", "run", "-q", "--queue", "-n", "later", "-S", f"{T}=5.0")
    dvc("exp", "run", "-q", "-n", "partly", "-S", f"{T}=6.0", "distill")
    hinton = ["distill.method.name=hinton"]

    study.run("gains", T, None, [GAIN], None, None, hinton, mixed=False)
    found = files.read_json(project / "metrics/studies/gains.json")
    values = {point["at"][T]: (point["found"][GAIN]["value"], point["found"][GAIN]["low"]) for point in found["points"]}
    assert values == {t: pytest.approx(((t - 3) / 100, (t - 3) / 100 - 0.015)) for t in (2.0, 4.0, 6.0)}
    assert "partly" in {point["experiment"] for point in found["points"]}
    told = capsys.readouterr().out
    assert "1 queued (later), 1 failed (" in told
    assert "left out" not in told

    accuracy = "evaluate.student.accuracy"
    study.run("accuracies", T, None, [accuracy], None, None, hinton, mixed=False)
    found = files.read_json(project / "metrics/studies/accuracies.json")
    assert {point["at"][T]: point["found"][accuracy]["value"] for point in found["points"]} == pytest.approx(
        {2.0: 0.49, 4.0: 0.51}
    )
    assert f"left out, since {accuracy} is older than their parameters: partly, workspace" in capsys.readouterr().out

    study.run("methods", "distill.method", None, [GAIN], None, None, None, mixed=False)
    found = files.read_json(project / "metrics/studies/methods.json")
    assert "dkd: temperature 7, beta 2" in {point["at"]["distill.method"] for point in found["points"]}
    assert len(found["points"]) == 4

    params = project / "params.yaml"
    params.write_text(params.read_text().replace("temperature: 6.0", "temperature: 8.0"))
    capsys.readouterr()
    study.run("edited", T, None, [GAIN], None, None, hinton, mixed=False)
    assert f"left out, since {GAIN} is older than their parameters: workspace" in capsys.readouterr().out
