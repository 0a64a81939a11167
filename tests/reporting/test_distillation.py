"""Students against their controls, where there are some."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.core import params
from stages.core.reporting import findings, learning_charts
from stages.core.running import sources
from stages.core.running.errors import Refusal
from tests.reporting.numbers import LESSON, distilled
from tests.reporting.reader import Page, share
from tests.reporting.world import Build, World

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("student", "control", "reason", "verdict"),
    [
        (range(0), range(20), "on 20 test pictures only the student is right, on 0 only", "The student of this pair"),
        (range(20), range(0), "on 0 test pictures only the student is right, on 20 only", "The control of this pair"),
        (range(5), range(5, 11), "on 6 test pictures only the student is right, on 5 only", "No difference is shown"),
        (range(5), range(5), "are right on the very same pictures", ""),
    ],
)
def test_one_seed_shows_nothing_over_seeds_and_its_pair_is_judged_by_the_pictures(
    student: range, control: range, reason: str, verdict: str, tmp_path: Path, build: Build
) -> None:
    page = build(World(tmp_path, {"student": student, "control": control}))
    assert "Not shown One seed, 0.0 points on val" in page.text
    assert reason in page.text
    assert verdict in page.text
    assert "not the best one" not in page.text


@pytest.mark.parametrize(("verdict", "word"), [("helps", "Helps"), ("hurts", "Hurts"), ("not shown", "Not shown")])
def test_several_seeds_are_judged_together(verdict: str, word: str, tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    seeds = {"7": (0.901, 0.89), "8": (0.915, 0.9), "9": (0.88, 0.884)}
    world.write("distill", **distilled(LESSON, seeds, verdict=verdict, gain_low=-0.0123, gain_high=0.0456))
    page = build(world)
    seen = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert f"{word} 3 seeds: the student's accuracy less its control's is +0.7 points on val in the mean" in seen
    assert "paired t interval at 95 % [−1.2, +4.6]" in seen
    assert "that of the first seed (7), not the best one" in seen
    assert "which 2 other seeds tried too" in seen
    assert page.row("Seed 7") == [share(0.901), share(0.89), "+1.1"]
    assert page.row("Seed 9") == [share(0.88), share(0.884), "−0.4"]
    assert page.row("Mean") == [share(2.696 / 3), share(2.674 / 3), "+0.7"]


def test_without_a_control_nothing_is_claimed_and_none_is_shown(alone: World, build: Build) -> None:
    page = build(alone)
    assert "No control No twin was trained without the teacher, so that nothing is claimed" in page.text
    assert [len(page.tables[name]) for name in ("Answers on test", "Size")] == [5, 5]
    assert [row[0] for row in page.rows if row and row[0].endswith("and control")] == []
    remaining = page.text.replace("No control", "").replace("its control's", "")
    assert "control" not in remaining
    assert "McNemar test," not in page.text


@pytest.mark.slow
def test_charts_without_a_control(alone: World) -> None:
    drawn = json.loads(Page(alone.build(params.load(sources.ROOT / "params.yaml"))).scripts[1])
    assert {"distill-accuracy", "distill-loss"} < drawn.keys()
    assert "seeds" not in drawn


@pytest.mark.parametrize("place", ["distill", "evaluate", "classes", "answers", "folder", "absent"])
def test_a_control_that_only_some_know_of_stops_the_report(place: str, alone: World, build: Build) -> None:
    twin = World(alone.root / "with")
    if place == "distill":
        alone.write("distill", **distilled(LESSON, {"0": (0.876, 0.876)}))
    elif place == "evaluate":
        shutil.copy(twin.metrics / "evaluate.json", alone.metrics)
    elif place == "classes":
        shutil.copy(twin.metrics / "classes.csv", alone.metrics)
    elif place == "answers":
        shutil.copy(twin.root / "answers/answers.csv", alone.root / "answers")
    elif place == "folder":
        shutil.copy(twin.root / "models/control/model.json", alone.root / "models/control")
    else:
        (alone.root / "models/control/absent.json").unlink()
    with pytest.raises(Refusal, match=r"control.*`dvc repro`"):
        build(alone)


@pytest.mark.parametrize(
    "change", [{"verdict": "helps"}, {"gain_on_val": 0.1}, {"seeds": {"0": {"student": 0.5, "control": 0.5}}}]
)
def test_a_verdict_without_a_control_stops_the_report(change: dict[str, Any], alone: World, build: Build) -> None:
    alone.write("distill", **distilled(LESSON, {"0": (0.876, None)}) | change)
    with pytest.raises(Refusal, match=r"distill\.json: .* disagree whether there is a control"):
        build(alone)


def test_lessons_without_a_seed_stop_the_report(alone: World, build: Build) -> None:
    alone.write("distill", **distilled(LESSON, {}))
    with pytest.raises(Refusal, match=r"distill\.json: .* disagree whether there was a lesson"):
        build(alone)


def test_other_seeds_are_faint_lines_of_their_own(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, seen = World(tmp_path), list[findings.Findings]()
    path = world.metrics / "curves/distill.csv"
    first = pd.read_csv(path)
    again = first.assign(network=first["network"] + "-1", val_accuracy=first["val_accuracy"] / 2)
    pd.concat([first, again]).to_csv(path, index=False)
    monkeypatch.setattr(learning_charts, "everything", lambda found: seen.append(found) or {})
    build(world)
    rows = learning_charts.curve_rows(seen[0], ("student", "control"))
    assert rows.groupby("line")["faint"].all().to_dict() == {
        "student": False,
        "control": False,
        "student-1": True,
        "control-1": True,
    }
    assert rows[rows["kept"]]["line"].tolist() == ["student", "control"]
    assert rows[rows["line"] == "student-1"]["val_accuracy"].tolist() == pytest.approx([12.5, 25, 37.5])
