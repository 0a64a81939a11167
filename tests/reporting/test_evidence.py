"""Evidence on the page: what is recommended, how far numbers are to be believed, what is said where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.core import params
from stages.core.running import sources
from stages.core.running.errors import Refusal
from tests.reporting.numbers import MACHINE, SHIPPED, timing
from tests.reporting.reader import Page, share
from tests.reporting.world import Build, World

pytestmark = pytest.mark.slow

SETTINGS = params.load(sources.ROOT / "params.yaml")
NO_LIMIT: dict[str, Any] = dict.fromkeys(params.Budget.model_fields)


@pytest.fixture
def within(build: Build, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A page for a budget of these limits alone."""

    def page(world: World, **limits: float) -> Page:
        report = SETTINGS.report.model_copy(update={"budget": params.Budget(**NO_LIMIT | limits)})
        return Page(world.build(SETTINGS.model_copy(update={"report": report})))

    return page


def seen_on(page: Page) -> str:
    return page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_smallest_file_that_keeps_to_the_budget_is_recommended(world: World, within: Any) -> None:
    """Val tells drops of 0, 0.2, 0.3 and 0.4 points; on test they are 0, 3, 4.5 and 6."""
    assert "<title> quantized.onnx: 1.23 kB" in seen_on(within(world, drop=0.01))
    page = seen_on(within(world, drop=0.0025))
    assert "student.onnx: 0.12 MB, 100× smaller and 3.0× faster than the teacher, accuracy 97.0 %" in page
    assert "Of 4 files 2 keep to the budget, and this is the smallest of them. Test chose nothing." in page
    assert "quantized.onnx is 100× smaller yet, but drop on val" in page
    assert "It loses 3.0 points against the teacher" in page


def test_a_teacher_that_alone_keeps_to_the_budget_is_beside_nobody(world: World, within: Any) -> None:
    page = seen_on(within(world, drop=0.0))
    assert "teacher.onnx: 12.35 MB, accuracy 100.0 %" in page
    assert "the only one that keeps to the budget" in page
    assert "against the teacher, and" not in page.partition("Every step")[0]
    assert "12.35 MB the teacher itself" in page


def test_a_budget_that_no_file_keeps_to_says_so_and_names_the_nearest(world: World, within: Any) -> None:
    page = seen_on(within(world, drop=0.0025, megabytes=0.05, joules=1.0))
    first, _, rest = page.partition("Every step")
    assert "No file keeps to the budget" in first
    assert "energy a picture: at most 1 J, not measurable here: fails" in first
    assert "chosen" not in rest.partition("Answers on test")[0]
    assert "nearest" in rest.partition("Answers on test")[0]


def test_a_worse_file_is_called_worse(tmp_path: Path, within: Any) -> None:
    """Without limits, the most accurate file on val is taken, whatever it is on test."""
    world = World(tmp_path, {"quantized": range(10)})
    for place in ("benchmark", "export"):
        prefix = "files." if place == "benchmark" else ""
        world.change(place, f"{prefix}quantized.bytes", 24_691_356)
    world.change("benchmark", "files.quantized.one_thread.times_faster_than_teacher", 0.5)
    world.change("export", "quantized.accuracy", 0.999)
    world.change("export", "quantized.accuracy_drop", 0.5)
    page = within(world)
    assert "24.69 MB, 2.0× larger and 2.0× slower than the teacher, accuracy 95.0 %" in seen_on(page)
    told = "It loses 5.0 points against the teacher, and the pictures show it: on 10 pictures only the teacher is right"
    assert f"{told}, on 0 only this network (p = 0.012, corrected)." in seen_on(page)
    assert page.column("What the pictures can tell apart", "Verdict")[0] == "the first is worse"
    assert page.column("Parity gate", "Gate")[-1] == "not passed"


def test_energy_is_a_chart_where_it_was_measured_and_a_reason_where_not(
    world: World, page: Page, tmp_path: Path
) -> None:
    assert "energy" not in json.loads(page.scripts[1])
    assert "Not measurable here: no counters." in page.text
    measured = World(tmp_path)
    for at, name in enumerate(("teacher", "student", "pruned", "quantized")):
        joules = {"per_picture": 0.002 / (at + 1), "low": 0.0001, "high": 0.003}
        measured.change("benchmark", f"files.{name}.joules", joules)
    measured.change("benchmark", "energy", {"source": "RAPL of the whole package", "why": ""})
    html = Page(measured.build(SETTINGS))
    points = json.loads(html.scripts[1])["energy"]["data"]["values"]
    assert [point["millijoules"] for point in points] == pytest.approx([2, 1, 2 / 3, 0.5])
    assert "Energy: RAPL of the whole package." in html.text
    assert html.column("Latency, memory and energy", "Energy")[0].startswith("2.00\N{NO-BREAK SPACE}mJ")


def test_bins_severities_and_groups_are_told_with_their_intervals(
    world: World, page: Page, tmp_path: Path, build: Build
) -> None:
    assert page.column("Reliability", "Pictures")[:2] == ["20", "90"]
    assert page.column("Reliability", "Mean confidence")[:2] == [share(0.7), share(0.95)]
    assert page.column("Robustness", "Amount") == ["untouched", "0.04", "0.18"] * 2
    assert page.column("Robustness", "student")[1].startswith("66.0")
    assert page.column("Robustness in the mean", "Noise")[0].startswith("61.0")
    assert "Subgroups" not in page.tables
    grouped = World(tmp_path)
    grouped.group({"007": 17, "NA": 12})
    found = build(grouped).tables["Subgroups"]
    assert [row[:3] for row in found[1:]] == [["007", "camera", "20"], ["NA", "camera", "20"]]
    assert found[1][3].replace("\N{NO-BREAK SPACE}", " ") == "85.0 % [75.0, 90.0]"


def test_what_was_not_spoilt_is_said(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    path = world.metrics / "robustness.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    for name in ("teacher", "control", "student", "pruned", "quantized"):
        world.change("evaluate", f"{name}.robustness", {})
    assert "evaluate.robustness names no amounts" in build(world).text


def test_maps_stand_beside_their_pictures_and_a_missing_one_stops_the_report(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    assert "No layer of them has a place." in build(world).text
    world.look({"teacher": "layer4", "student": None}, "", 2)
    page = build(world)
    assert "layer4 of the teacher" in page.text
    assert page.text.count("no map") == 2
    (tmp_path / "answers/attention/000001-teacher.png").unlink()
    with pytest.raises(Refusal, match=r"000001-teacher\.png is missing.*`dvc repro evaluate`"):
        build(world)


@pytest.mark.parametrize("path", ["attention/attention.json", "answers.csv"])
def test_a_missing_file_is_named_with_what_writes_it(path: str, tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    (tmp_path / "answers" / path).unlink()
    with pytest.raises(Refusal, match=r"is missing; `dvc repro` writes it anew"):
        build(world)


def test_the_machine_is_told_in_words(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    machine = MACHINE | {"gpu": None, "memory_bytes": 25_325_268_992, "load_average": 9.64}
    world.change("benchmark", "machine", machine | {"driver": {"name": "x", "shared_bytes": 2_000_000_000}})
    seen = seen_on(build(world))
    for told in ("GPU none", "memory 25.3 GB", "load average 9.64", "CPU A <CPU>", "driver name x, shared 2.0 GB"):
        assert told in seen


def test_a_gpu_that_was_measured_has_rows_and_noise_is_told_of_every_file(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    world.change("benchmark", "gpu", {"name": "A GPU"})
    for name in SHIPPED:
        world.change("benchmark", f"files.{name}.gpu", timing(0.25, noisy=True))
        world.change("benchmark", f"files.{name}.one_thread.noisy", True)
    page = build(world)
    rows = [row for row in page.tables["Every measurement"] if row[1] == "GPU"]
    assert [row[0] for row in rows] == list(SHIPPED)
    assert {row[3].partition("\N{NO-BREAK SPACE}ms")[0] for row in rows} == {"0.250"}
    assert "GPU: A GPU." in page.text
    assert "Noisy timing of teacher, student, pruned and quantized on one thread" in page.text


def test_drift_is_told_by_what_the_benchmark_found(tmp_path: Path, build: Build) -> None:
    """With many timings, a p below 0.05 alone is no finding."""
    world = World(tmp_path)
    for name, found in (("student", False), ("pruned", True)):
        world.change("benchmark", f"files.{name}.one_thread.drift", {"share": 0.31, "p": 0.0001, "found": found})
    drifts = {tuple(row[:3]): row[-1] for row in build(world).tables["Every measurement"]}
    assert drifts["student", "one", "1"] == "none found"
    assert drifts["pruned", "one", "1"] == "+31.0\N{NO-BREAK SPACE}% p < 0.001 found"


def test_failures_show_the_pictures_that_were_kept(tmp_path: Path, build: Build) -> None:
    page = build(World(tmp_path, {"quantized": range(3, 13)}, examples=6))
    assert "<b>bold</b> taken for NA 4 pictures, 1 kept" in page.text
    assert "NA taken for Ä & 鳥 3 pictures, 1 kept" in page.text
    assert len([place for place in page.loads if place.startswith("data:image")]) == 6


def test_every_file_is_told_at_every_batch_with_drift_and_noise(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    drifting = timing(0.4, drift={"share": -0.21, "p": 0.0012, "found": True}, pictures_per_second=20_000.4)
    world.change("benchmark", "files.quantized.batches.8.all_threads", drifting)
    found = build(world).tables["Every measurement"]
    assert len(found) == 1 + 4 * 2 * 2
    [row] = [row for row in found if row[:3] == ["quantized", "all", "8"]]
    assert row[3:6] == ["0.400\N{NO-BREAK SPACE}ms [0.360,\N{NO-BREAK SPACE}0.440]", row[4], "20,000"]
    assert row[-1] == "−21.0\N{NO-BREAK SPACE}% p = 0.001 found"
    assert found[1][-1] == "none found"


def test_numbers_are_ordered_by_what_they_are(html: str) -> None:
    assert 'data-value="12345678"' in html
    assert "thead button" in html


def test_metrics_of_an_earlier_schema_are_refused(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    world.change("benchmark", "files.teacher.load", None)
    with pytest.raises(Refusal, match=r"benchmark\.json: files\.teacher\.load: Field required; `dvc repro`"):
        build(world)
