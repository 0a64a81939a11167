"""Sweeps and ablations: a point is its parameters, runs once, and is compared with what ran on the same seeds."""

import contextlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert
from ruamel.yaml import YAML
from scipy import stats

from lightvision import __main__ as command
from lightvision import attempts, comparing, points
from lightvision.comparing import Question
from lightvision.points import Point
from stages.core import statistics
from stages.core.reporting import sweep_charts, sweeps
from stages.core.reporting.sweeps import Sweep
from stages.core.running import files, pipeline
from stages.core.running.errors import Refusal
from stages.core.running.sources import ROOT

pytestmark = pytest.mark.slow

PIPELINE = f"""
stages:
  evaluate:
    cmd: {sys.executable} stages/evaluate.py made evaluate --metrics metrics/evaluate.json
    params: [prepare, distill, prune, seed]
    deps: [stages/evaluate.py]
    metrics: [metrics/evaluate.json: {{cache: false}}]
  benchmark:
    cmd: {sys.executable} stages/benchmark.py made benchmark --metrics metrics/benchmark.json
    params: [prune, benchmark]
    deps: [stages/benchmark.py]
    metrics: [metrics/benchmark.json: {{cache: false}}]
"""
EVALUATE = """
import json, pathlib, sys, time
from ruamel.yaml import YAML
params = YAML(typ="safe").load(pathlib.Path("params.yaml"))
time.sleep(30 * (params["distill"]["seeds"] - 3))
if params["prune"]["sparsity"] == 0.66:
    sys.exit("evaluate: there is nothing left to cut")
at = 0.9 + params["seed"] / 100
accuracies = {"teacher": at, "student": at - 0.01 * (params["seed"] % 2)}
accuracies["pruned"] = at - params["prune"]["sparsity"] / 10
pathlib.Path("metrics").mkdir(exist_ok=True)
found = {"test": "same"} | {name: {"accuracy": accuracy} for name, accuracy in accuracies.items()}
pathlib.Path("metrics/evaluate.json").write_text(json.dumps(found))
"""
BENCHMARK = """
import json, pathlib
pathlib.Path("metrics").mkdir(exist_ok=True)
found = {"machine": {"cpu": "Made-up"}, "files": {"pruned": {"bytes": 1000, "one_thread": {"median": 0.5}}}}
pathlib.Path("metrics/benchmark.json").write_text(json.dumps(found))
"""
FILE = """
title: Half or more
about: How much is cut.
seeds: 3
baseline: half
rows:
  - {name: half, set: []}
  - {name: more, set: [prune.sparsity=0.75]}
metrics: [evaluate.pruned.accuracy, benchmark.files.pruned.bytes]
margin: 0.01
"""


def git(*words: str, **environment: str) -> str:
    told = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    return subprocess.run(
        ["git", *words], capture_output=True, text=True, check=True, env=os.environ | told | environment
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of git, with stages whose results follow from params.yaml."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "dvc.yaml": PIPELINE,
        "stages/evaluate.py": EVALUATE,
        "stages/benchmark.py": BENCHMARK,
        "studies/cut.yaml": FILE,
    }.items():
        files.write_text(tmp_path / name, text)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "all")
    return tmp_path


@pytest.fixture
def ran(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """Experiments run without DVC, and leave what DVC would; every point that ran, in order."""
    done: list[Point] = []

    def run(name: str, missing: Sequence[Point], targets: Sequence[str]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for point in missing:
            done.append(point)
            try:
                finish(project, f"{name}-{point.digest}", points.changed(point.sets), targets)
            except SystemExit as error:
                failed[point.digest] = str(error)
        return failed

    monkeypatch.setattr(attempts, "run", run)
    return done


def finish(project: Path, name: str, params: Any, targets: Sequence[str]) -> None:
    """A commit under refs/exps, with dvc.lock as of these stages."""
    scratch = project.parent / f"scratch-{name}"
    git("worktree", "add", "-q", "--detach", str(scratch), "HEAD")
    try:
        YAML().dump(params, scratch / "params.yaml")
        stages = pipeline.read()
        lock = {}
        for target in targets:
            with contextlib.chdir(scratch):
                runpy.run_path(f"stages/{target}.py")
            lock[target] = {"params": {"params.yaml": {entry: params[entry] for entry in stages[target].params}}}
        YAML().dump({"stages": lock}, scratch / "dvc.lock")
        git("-C", str(scratch), "add", ".")
        git("-C", str(scratch), "commit", "-qm", name)
        head = git("rev-parse", "HEAD")
        git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", git("-C", str(scratch), "rev-parse", "HEAD"))
    finally:
        git("worktree", "remove", "--force", str(scratch))


def lightvision(*words: str) -> int:
    """Its exit status; what it refuses is raised."""
    sys.argv = ["lightvision", *words]
    with pytest.raises(SystemExit) as ended:
        command.main()
    if isinstance(ended.value.code, str):
        raise Refusal(ended.value.code)
    return ended.value.code or 0


def written(name: str) -> Sweep:
    return Sweep.model_validate_json(Path(f"metrics/sweeps/{name}.json").read_bytes())


# ------------------------------------------------------------------------------------------------------- points


def test_a_point_is_what_reaches_its_stages(project: Path) -> None:
    """However it is written, and whatever other stages are told."""
    stages = points.needed(["evaluate"])

    def digest(*sets: str, seed: int = 0) -> str:
        return points.point("any", seed, None, sets, stages).digest

    assert digest() == digest("prune.sparsity=0.5") == digest("benchmark.rounds=3", "report.title=Other")
    assert len({digest(), digest("prune.sparsity=0.75"), digest(seed=1), digest("prepare.folds=5")}) == 4


def test_a_mistake_is_one_line_before_anything_runs(ran: list[Point]) -> None:
    with pytest.raises(Refusal, match=r"prune.sparsity: Input should be a valid number, got 'half'"):
        lightvision("sweep", "-S", "prune.sparsity=half")
    with pytest.raises(Refusal, match=r"Could not override 'prun'.*as `dvc exp run -S` takes it"):
        lightvision("sweep", "-S", "prun=1")
    with pytest.raises(Refusal, match=r"dvc.yaml has no stage evalute; it has evaluate, benchmark"):
        lightvision("sweep", "--to", "evalute")
    with pytest.raises(Refusal, match="count from 1"):
        lightvision("sweep", "--seeds", "0")
    with pytest.raises(Refusal, match="--margin is in points"):
        lightvision("sweep", "--margin", "0")
    with pytest.raises(Refusal, match="small letters"):
        lightvision("sweep", "--name", "My Sweep")
    assert not ran


def test_code_that_is_not_committed_is_refused(ran: list[Point], project: Path) -> None:
    files.write_text(project / "stages/evaluate.py", EVALUATE + "# else\n")
    with pytest.raises(Refusal, match=r"commit stages/evaluate.py first"):
        lightvision("sweep")
    assert not ran


# ------------------------------------------------------------------------------------------------------- sweeps


def test_seeds_run_once_and_only_what_is_missing(ran: list[Point], capsys: pytest.CaptureFixture[str]) -> None:
    assert lightvision("sweep", "--seeds", "1") == 0
    assert lightvision("sweep", "--seeds", "2", "--name", "more") == 0
    assert "more: 1 experiment there already, 1 to run" in capsys.readouterr().out
    assert [point.seed for point in ran] == [0, 1]
    assert lightvision("ablation", "studies/cut.yaml", "--seeds", "2") == 0
    assert [(point.row, point.seed) for point in ran[2:]] == [("more", 0), ("more", 1)]


def test_other_code_runs_again(ran: list[Point], project: Path) -> None:
    lightvision("sweep", "--seeds", "1")
    (project / "README.md").write_text("Nothing that a stage reads")
    git("add", ".")
    git("commit", "-qm", "words")
    lightvision("sweep", "--seeds", "1")
    assert len(ran) == 1
    (project / "stages/evaluate.py").write_text(EVALUATE + "# else\n")
    git("commit", "-qam", "code")
    lightvision("sweep", "--seeds", "1")
    assert len(ran) == 2


def test_what_is_said_of_seeds(ran: list[Point], capsys: pytest.CaptureFixture[str]) -> None:
    lightvision("sweep", "--seeds", "4", "--margin", "2")
    found = written("seeds")
    assert found.varied == "seeds vary split, start and order; the test pictures are the same"
    accuracy, size, speed = found.comparisons
    student = next(one for one in accuracy.series if one.name == "student")
    expected = [0.9, 0.9, 0.92, 0.92]
    assert list(student.values.values()) == pytest.approx(expected)
    assert student.mean == pytest.approx(0.91)
    assert (student.low, student.high) == pytest.approx(stats.ttest_1samp(expected, 0).confidence_interval())
    pair = next(one for one in accuracy.pairs if (one.first, one.second) == ("student", "teacher"))
    assert pair.difference == pytest.approx(-0.005)
    assert pair.p == pytest.approx(stats.ttest_rel(expected, [0.9, 0.91, 0.92, 0.93]).pvalue)
    assert accuracy.margin == 0.02
    assert (size.series[0].mean, size.pairs, speed.series[0].mean) == (1000, [], 0.5)
    assert [run.params for run in found.runs] == [{"seed": seed} for seed in range(4)]
    assert {(run.test, run.machine) for run in found.runs} == {("same", "Made-up")}
    table = pd.read_csv("metrics/sweeps/seeds.csv")
    assert table["evaluate.student.accuracy"].tolist() == pytest.approx(expected)
    shown = capsys.readouterr().out
    assert "seeds, 4 seeds: seeds vary split, start and order" in shown
    assert "nan" not in shown


def test_folds_are_points_of_one_seed(ran: list[Point]) -> None:
    lightvision("sweep", "--folds", "3")
    assert [(point.seed, point.fold) for point in ran] == [(0, 0), (0, 1), (0, 2)]
    assert "folds share training pictures" in written("seeds").varied
    assert [run.params for run in written("seeds").runs] == [{"prepare.fold": fold} for fold in range(3)]


def test_a_single_seed_says_so(ran: list[Point], capsys: pytest.CaptureFixture[str]) -> None:
    lightvision("sweep", "--seeds", "1")
    assert "n = 1, no interval" in capsys.readouterr().out
    assert {pair.verdict for pair in written("seeds").comparisons[0].pairs} == {"n = 1, no interval"}


def test_without_anything_measured_it_is_refused(ran: list[Point]) -> None:
    with pytest.raises(Refusal, match="none of the 2 experiments finished"):
        lightvision("sweep", "--seeds", "2", "-S", "prune.sparsity=0.66")


# ---------------------------------------------------------------------------------------------------- ablations


def test_rows_against_the_baseline_by_seed(ran: list[Point]) -> None:
    lightvision("ablation", "studies/cut.yaml", "--seeds", "2")
    accuracy, size = written("cut").comparisons
    [pair] = accuracy.pairs
    assert (pair.first, pair.second, pair.n, pair.missing) == ("more", "half", 2, [])
    assert pair.difference == pytest.approx(-0.025)
    assert pair.verdict == "no spread: every seed differs by the same"
    assert (accuracy.margin, size.margin) == (0.01, None)


def test_a_point_that_fails_is_named_and_the_rest_goes_on(
    ran: list[Point], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FILE.replace("0.75]}", "0.75]}\n  - {name: none, set: [prune.sparsity=0.66]}")
    (project / "studies/cut.yaml").write_text(text)
    assert lightvision("ablation", "studies/cut.yaml", "--seeds", "1") == 1
    assert "failed: none, seed 0: evaluate: there is nothing left to cut" in capsys.readouterr().out
    found = written("cut")
    assert [(one.row, one.seed) for one in found.failed] == [("none", 0)]
    assert [one.name for one in found.comparisons[0].series] == ["half", "more"]


def test_dry_tells_and_runs_nothing(ran: list[Point], capsys: pytest.CaptureFixture[str]) -> None:
    lightvision("sweep", "--seeds", "1")
    assert lightvision("ablation", "studies/cut.yaml", "--dry") == 0
    shown = capsys.readouterr().out
    assert shown.count("to run") == 1 + 5
    assert len(ran) == 1
    assert not Path("metrics/sweeps/cut.json").exists()


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("seeds: 3", "seads: 3", "seads is not known here; allowed: title, about, seeds"),
        ("set: []", "sets: []", "rows.0.sets is not known here; allowed: name, set"),
        ("baseline: half", "baseline: hlf", "baseline 'hlf' is no row; rows are half, more"),
        ("seeds: 3", "seeds: 0", "seeds: Input should be greater than or equal to 1"),
        ("name: more", "name: half", "two rows have one name"),
        ("[evaluate.pruned.accuracy,", "[evalute.pruned.accuracy,", r"no stage writes metrics/evalute.json"),
        ("evaluate.pruned.accuracy", "evaluate.pruned.acuracy", "no row has a number for evaluate.pruned.acuracy"),
        ("seeds: 3", "seeds: [", "is not YAML"),
    ],
)
def test_a_typo_in_a_file_is_one_line(was: str, now: str, said: str, ran: list[Point], project: Path) -> None:
    (project / "studies/cut.yaml").write_text(FILE.replace(was, now, 1))
    with pytest.raises(Refusal, match=said) as refused:
        lightvision("ablation", "studies/cut.yaml")
    assert "\n" not in str(refused.value)


# -------------------------------------------------------------------------------------------------- comparisons

ASKED = Question("accuracy", share=True, margin=0.01, confidence=0.95)
FIRST, SECOND, THIRD = [0.91, 0.94, 0.92, 0.95], [0.90, 0.91, 0.91, 0.93], [0.90, 0.94, 0.91, 0.95]


def by_seed(values: Sequence[float], first: int = 0) -> dict[str, float]:
    return {f"seed {seed}": value for seed, value in enumerate(values, start=first)}


def test_only_shared_seeds_are_pairs_and_the_others_are_named() -> None:
    """In whatever order they come."""
    first, second = by_seed(FIRST), dict(reversed(by_seed([*SECOND[1:], 0.99], first=1).items()))
    [pair] = comparing.compare(ASKED, {"a": first, "b": second}, [("a", "b")]).pairs
    assert (pair.n, pair.missing) == (3, ["seed 0", "seed 4"])
    assert pair.p == pytest.approx(stats.ttest_rel(FIRST[1:], SECOND[1:]).pvalue)
    assert "only one has seed 0, seed 4" in sweeps.decided(pair, ONE)[-1]
    [apart] = comparing.compare(ASKED, {"a": by_seed([0.9]), "b": by_seed([0.8], 7)}, [("a", "b")]).pairs
    assert (apart.n, apart.difference, apart.verdict) == (0, None, "no seed in common")


def test_a_family_is_adjusted_and_verdicts_follow_it() -> None:
    """Alone, this difference would be one."""
    series = {"a": by_seed(FIRST), "b": by_seed(SECOND), "c": by_seed(THIRD)}
    alone = comparing.compare(ASKED, series, [("a", "b")]).pairs[0]
    family = comparing.compare(ASKED, series, [("a", "b"), ("a", "c"), ("b", "c")])
    chances = [pair.p for pair in family.pairs]
    assert [pair.p_holm for pair in family.pairs] == statistics.holm(chances)
    assert (alone.verdict, family.pairs[0].verdict) == ("better", "no difference is shown")
    assert sweeps.family(family) == 3


def test_more_bytes_are_not_better() -> None:
    question = Question("bytes", share=False, margin=None, confidence=0.95)
    series = {"a": by_seed([110, 121, 130]), "b": by_seed([10, 20, 31])}
    [pair] = comparing.compare(question, series, [("a", "b")]).pairs
    assert (pair.verdict, pair.p_equivalent, pair.seeds_for_margin) == ("more", None, None)


ONE = comparing.compare(ASKED, {"a": by_seed(FIRST), "b": by_seed(SECOND), "once": by_seed([0.9])}, [("a", "b")])


def test_what_a_person_reads() -> None:
    [pair] = ONE.pairs
    assert sweeps.decided(pair, ONE)[:2] == ["4", "+1.75"]
    assert sweeps.tested(pair, ONE)[0] == f"{pair.p:.3f}"
    assert sweeps.more(pair, ONE) == f"{pair.seeds_for_difference} / {pair.seeds_for_margin}"
    assert sweeps.least(ONE) == "0.12"  # 2 of 16 ways to draw four signs
    once = sweeps.summary(ONE.series[2], ONE)
    assert once[2:] == ["–", "–", "–", "n = 1, no interval"]


def test_the_chart_has_every_seed_and_every_mean() -> None:
    assert [row["value"] for row in sweep_charts.dots(ONE)][:4] == pytest.approx([91, 94, 92, 95])
    assert [row["low"] is None for row in sweep_charts.means(ONE)] == [False, False, True]
    chart = sweep_charts.seeds(ONE).to_dict()
    assert vl_convert.vegalite_to_svg(chart).count("<path") > len(sweep_charts.dots(ONE))


# ---------------------------------------------------------------------------------------------------- with DVC


def test_the_reason_is_what_the_stage_said() -> None:
    dvc = "ERROR: failed to reproduce 'prune': failed to run: python -m stages prune, exited with 1"
    assert attempts.reason(f"a note\nprune: nothing is left\n{dvc}\n") == "prune: nothing is left"
    assert attempts.reason("ERROR: unexpected error - no space left\n") == "unexpected error - no space left"
    assert attempts.reason("") == "it ended without a word"


@pytest.fixture
def real(project: Path) -> Path:
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    git("add", ".")
    git("commit", "-qm", "dvc")
    return project


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lightvision", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_dvc_runs_what_is_missing_and_says_what_failed(real: Path) -> None:
    with start("sweep", "--seeds", "2", "--to", "evaluate") as first:
        out, errors = first.communicate()
    assert (first.returncode, errors) == (0, ""), out + errors
    assert [run.metrics["evaluate.teacher.accuracy"] for run in written("seeds").runs] == pytest.approx([0.9, 0.91])
    (real / "studies/cut.yaml").write_text(
        FILE.replace("0.75]", "0.66]").replace(", benchmark.files.pruned.bytes", "").replace("seeds: 3", "seeds: 1")
    )
    with start("ablation", "studies/cut.yaml") as second:
        out, errors = second.communicate()
    assert second.returncode == 1, out + errors
    assert "cut: 1 experiment there already, 1 to run" in out
    assert "failed: more, seed 0: evaluate: there is nothing left to cut" in out


@pytest.mark.parametrize(
    ("how", "background"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_what_finished_before_the_end_stays(how: signal.Signals, background: bool, real: Path) -> None:
    """And nothing goes on alone, nor where a shell that starts it in the background has it ignore the keyboard."""
    text = FILE.replace("prune.sparsity=0.75", "distill.seeds=4").replace(", benchmark.files.pruned.bytes", "")
    (real / "studies/cut.yaml").write_text(text.replace("seeds: 3", "seeds: 1"))
    keyboard = signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler)
    with start("ablation", "studies/cut.yaml") as process:
        signal.signal(signal.SIGINT, keyboard)
        deadline = time.monotonic() + 60
        while not git("for-each-ref", "refs/exps") and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(4)  # the second one is asleep
        process.send_signal(how)
        began = time.monotonic()
        process.wait()
    assert (process.returncode, time.monotonic() - began < 25) == (130, True)
    assert len(points.there(points.needed(["evaluate"]))) == 1
