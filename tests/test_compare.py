"""`lightvision compare`: what is planted comes out, and nothing else does."""

import json
import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from lightvision import __main__ as command
from lightvision import compare, differences, revisions
from lightvision.runs import Run
from stages.core.answers import Answers
from stages.core.running.errors import Refusal
from tests import made_project
from tests.made_project import edit, pretend_experiment

pytestmark = pytest.mark.slow

PICTURES = 400


def answered(**errors: slice) -> Answers:
    """Of two classes; each network is wrong on some pictures."""
    labels = np.arange(PICTURES) % 2
    right = np.eye(2, dtype=np.float32)[labels]
    probabilities = {name: right.copy() for name in errors}
    for name, wrong in errors.items():
        probabilities[name][wrong] = 1 - right[wrong]
    return Answers("test", ("a", "b"), labels, probabilities)


def differ(first: Answers, second: Answers, margin: float = 0.01) -> Mapping[str, differences.Difference]:
    found = differences.differ(first, second, list(first.probabilities), margin, 0.95)
    return {one.network: one for one in found}


def test_a_planted_difference_and_a_planted_equality_come_out_as_such() -> None:
    before = answered(worse=slice(0, 4), better=slice(0, 44), same=slice(0, 4), noisy=slice(0, 12))
    after = answered(worse=slice(0, 44), better=slice(40, 48), same=slice(0, 4), noisy=slice(4, 17))
    found = differ(before, after)
    assert {name: one.verdict for name, one in found.items()} == {
        "worse": "worse",
        "better": "better",
        "same": "equivalent within 1.00 points",
        "noisy": "no difference is shown",
    }
    assert {name: (one.lost, one.won) for name, one in found.items()} == {
        "worse": (40, 0),
        "better": (4, 40),
        "same": (0, 0),
        "noisy": (5, 4),
    }
    assert {name for name, one in found.items() if one.identical} == {"same"}
    after.probabilities["same"] *= 0.9
    assert not differ(before, after)["same"].identical


def test_every_number_is_that_of_a_formula() -> None:
    """Against statsmodels, Agresti and Min's formula by hand, and Holm's step by hand."""
    before = answered(one=slice(0, 30), two=slice(0, 10))
    after = answered(one=slice(15, 33), two=slice(5, 10))
    found = differ(before, after, margin=0.05)
    one, two = found["one"], found["two"]
    assert (one.lost, one.won, one.first, one.second) == (3, 15, 370 / 400, 382 / 400)
    exact: Any = mcnemar([[0, 15], [3, 0]], exact=True)
    assert one.p == pytest.approx(exact.pvalue)
    assert two.p == pytest.approx(2 * 0.5**5)
    assert one.p_holm == pytest.approx(2 * one.p)
    assert two.p_holm == pytest.approx(max(two.p, 2 * one.p))
    centre = (15 - 3) / 402
    reach = 1.959964 * math.sqrt(15.5 + 3.5 - (15.5 - 3.5) ** 2 / 402) / 402
    assert one.interval == pytest.approx((centre - reach, centre + reach), abs=1e-6)
    rng = np.random.default_rng(1)
    drawn = np.repeat([-1, 1, 0], [3, 15, 382])[rng.integers(0, 400, (20_000, 400))].mean(axis=1)
    assert one.bootstrap == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.003)
    assert one.difference == pytest.approx(382 / 400 - 370 / 400)
    wilson = [proportion_confint(right, 400, method="wilson") for right in (370, 382)]
    assert [one.first_interval, one.second_interval] == [pytest.approx(interval) for interval in wilson]
    assert one.p_equivalent == pytest.approx(differ(after, before, margin=0.05)["one"].p_equivalent)
    assert differ(after, before)["one"].difference == -one.difference


def test_more_networks_make_a_difference_less_sure() -> None:
    """Seven pictures won of seven, p = 0.016: shown alone, and not among four."""
    alone = differ(answered(one=slice(0, 7)), answered(one=slice(0, 0)))["one"]
    others = {name: slice(0, 0) for name in ("two", "three", "four")}
    among = differ(answered(one=slice(0, 7), **others), answered(one=slice(0, 0), **others))["one"]
    assert (alone.verdict, among.verdict) == ("better", "no difference is shown")
    assert among.p_holm == pytest.approx(4 * alone.p)


# --------------------------------------------------------------------------------------------------- as a command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_project.pretend(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        made_project.enter(folder, patch)
        pretend_experiment("small", "sparsity: 0.5", "sparsity: 0.75")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    made_project.enter(tmp_path, monkeypatch)


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["lightvision", "compare", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("words", [(), ("--files",), ("--network", "quantized")])
def test_a_run_against_itself_is_identical(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(monkeypatch, "workspace", "workspace", *words) == 0
    told = capsys.readouterr().out
    assert "identical: workspace and workspace have the same parameters, metrics and answers" in told
    assert "quantized: identical answers" in told
    assert ("teacher: identical answers" in told) == ("--network" not in words)
    assert "no parameter differs" in told


def other(folder: Path, before: str, after: str) -> Run:
    """The workspace as it would be with other parameters, its answers kept elsewhere."""
    edit(before, after)
    made_project.repro()
    for path in ("data/answers", "data/file_answers"):
        shutil.copytree(path, folder / path)
    found = replace(revisions.of_workspace(), name="other", fetch=lambda path, _: folder / path)
    edit(after, before)
    made_project.repro()
    return found


@pytest.mark.usefixtures("project")
def test_what_differs_is_told(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    here, there = revisions.of_workspace(), other(tmp_path_factory.mktemp("other"), "sparsity: 0.5", "sparsity: 0.75")
    found = compare.compare((here, there), compare.NETWORKS, None, 0.01, 0.95)
    compare.show(found)
    told = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    assert found.params == {"prune.sparsity": (0.5, 0.75)}
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert rows[0] == ["prune.sparsity", "0.5", "0.75"]
    assert rows[-2:] == [
        ["quantized", "workspace", "0.50 MB", "5,000,000", "3.75 ms [3.75, 3.75]", "89.0 % [85.6, 91.7]"],
        ["quantized", "other", "0.25 MB", "2,500,000", "1.88 ms [1.87, 1.88]", "84.0 % [80.1, 87.3]"],
    ]
    assert "other against workspace, 400 test pictures that both answered, 95 % intervals:" in told
    assert told.splitlines()[-5:] == [
        "quantized: worse",
        "  accuracy 89.0 % [85.6, 91.7] -> 84.0 % [80.1, 87.3]; 20 lost, 0 won",
        "  difference −5.0 points [−7.2, −2.8] (Agresti and Min), [−7.2, −3.0] (bootstrap)",
        "  p of no difference 1.9 · 10⁻⁶ (exact McNemar), 3.8 · 10⁻⁶ among 2 networks (Holm)",
        "  p of 1.00 points or more 1 (two one-sided tests)",
    ]
    assert not found.identical
    assert json.loads(json.dumps(compare.content(found)))["networks"][1]["lost"] == 20


@pytest.mark.usefixtures("project")
def test_other_pictures_are_not_compared(tmp_path_factory: pytest.TempPathFactory) -> None:
    here, there = revisions.of_workspace(), other(tmp_path_factory.mktemp("other"), "\nseed: 0", "\nseed: 1")
    with pytest.raises(Refusal, match="not comparable: workspace and other: these answers are to other test pictures"):
        compare.compare((here, there), compare.NETWORKS, None, 0.01, 0.95)


@pytest.mark.usefixtures("project")
def test_latencies_of_two_machines_are_not_comparable() -> None:
    here = revisions.of_workspace()
    benchmark = {**here.metrics["benchmark"], "machine": {"cpu": "Other", "cores": 8, "onnxruntime": "1"}}
    there = replace(here, metrics={**here.metrics, "benchmark": benchmark})
    found = compare.compare((here, there), compare.NETWORKS, None, 0.01, 0.95)
    told = [line for line in compare.measured(found) if isinstance(line, str)]
    machines = "Made-up, 2 cores, ONNX Runtime 1; Other, 8 cores, ONNX Runtime 1"
    assert told == [f"latencies are of two machines, and not comparable: {machines}"]


def test_a_latency_that_is_noisy_is_called_so() -> None:
    time = {"median": 0.2, "low": 0.1, "high": 0.3}
    file = {"bytes": 1, "macs": 2, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    told = [compare.facts(file | {"one_thread": time | {"noisy": noisy}})[2] for noisy in (False, True)]
    assert told == ["0.200 ms [0.100, 0.300]", "0.200 ms [0.100, 0.300], noisy"]


def test_sections_that_a_run_does_not_tell_of_do_not_differ() -> None:
    """MLflow knows the parameters of the stages that it saw; a method's own numbers come and go with it."""
    first = {"seed": 0, "prune.of": "macs", "distill.method.name": "dkd", "distill.method.beta": 2.0}
    second = {"seed": 0.0, "prune.of": "bytes", "distill.method.name": "hinton", "report.title": "A"}
    runs = [Run(str(n), params, {}, {}, lambda *_: Path(), str) for n, params in enumerate((first, second))]
    assert compare.unlike(*runs) == {
        "prune.of": ("macs", "bytes"),
        "distill.method.name": ("dkd", "hinton"),
        "distill.method.beta": (2.0, "-"),
    }


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("workspace", "nowhere"), "'nowhere' is no experiment (`dvc exp list --all-commits`) and no commit"),
        (("workspace", "workspace", "--network", "pruned"), "not both runs have answers of pruned; both have teacher"),
        (("workspace", "workspace", "--margin", "0"), "--margin is in points, between 0 and 100, not 0"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asked(monkeypatch, *words)
    assert isinstance(told, str)
    assert message in told
    assert "\n" not in told


@pytest.mark.usefixtures("project")
def test_answers_that_are_missing_or_older_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("data/answers")
    assert "`dvc repro evaluate" in str(asked(monkeypatch, "workspace", "workspace"))
    made_project.repro()
    edit("sparsity: 0.5", "sparsity: 0.6")
    told = str(asked(monkeypatch, "workspace", "workspace"))
    assert "data/answers does not belong to its params.yaml and dvc.lock: `dvc repro evaluate`" in told


# ------------------------------------------------------------------------------------------------------ of DVC


def test_answers_of_experiments_come_from_dvcs_cache_or_remote(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path_factory.mktemp("remote")
    made_project.build(tmp_path)
    made_project.enter(tmp_path, monkeypatch)
    made_project.dvc("remote", "add", "-q", "-d", "store", str(remote))
    made_project.commit()
    made_project.dvc("exp", "run", "-q", "-n", "small", "-S", "prune.sparsity=0.75")
    made_project.dvc("push", "-q")
    assert asked(monkeypatch, "HEAD", "small", "--json", "found.json") == 0
    found = json.loads(Path("found.json").read_text())
    assert [one["lost"] for one in found["networks"]] == [0, 20]
    assert not found["identical"]
    shutil.rmtree(".dvc/cache")
    assert asked(monkeypatch, "workspace", "small", "--files") == 0
    shutil.rmtree(remote)
    told = str(asked(monkeypatch, "workspace", "small"))
    assert "small: data/answers is neither in DVC's cache nor in a remote: `dvc fetch`" in told
