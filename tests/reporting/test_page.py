"""The page says what the stages found, nothing else, also where it is unwelcome; and it needs no network."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert

from stages.core import params, words
from stages.core.reporting import charts, examples, findings, learning_charts
from stages.core.running import files, sources
from stages.core.running.errors import Refusal
from tests import wiring
from tests.reporting.numbers import CLASSES, LESSON, NETWORKS, QUANTIZED
from tests.reporting.reader import Page, share
from tests.reporting.world import Build, World


def test_every_step_shows_its_own_numbers(world: World, page: Page) -> None:
    judged = files.read_json(world.metrics / "evaluate.json")
    shipped = files.read_json(world.metrics / "benchmark.json")["files"]
    for cell, name in zip(page.column("Answers on test", "Accuracy"), NETWORKS, strict=True):
        low, high = (f"{judged[name][f'accuracy_{end}'] * 100:.1f}" for end in ("low", "high"))
        assert cell == f"{share(judged[name]['accuracy'])} [{low},\N{NO-BREAK SPACE}{high}]"
    assert page.column("Answers on test", "Loss") == [f"{judged[name]['loss']:.3f}" for name in NETWORKS]
    for head, key in (("Macro F1", "macro_f1"), ("Calibration error", "calibration_error")):
        assert page.column("Answers on test", head) == [share(judged[name][key]) for name in NETWORKS]
    assert page.column("Answers on test", "Among the first 3")[1].startswith(share(0.995))
    assert page.column("Answers on test", "Worst class, recall")[2].startswith(share(0.68))
    assert page.column("Agreement", "Same answer")[0].startswith(
        share(judged["control"]["against"]["teacher"]["agreement"])
    )
    assert page.column("Agreement", "Largest fall of one class")[0] == "−3.2 <b>bold</b>"
    for head, key in (
        ("Parameters", "parameters"),
        ("File", "bytes"),
        ("After gzip", "gzip_bytes"),
        ("Not zero", "nonzero"),
    ):
        for cell, name in zip(page.column("Size", head), NETWORKS, strict=True):
            assert f"{shipped[name][key]:,}" in cell if name in shipped else cell == "not shipped" or "400,321" in cell
    assert page.column("Size", "Integer kernels")[-1] == "4 of 18"
    table = "Latency, memory and energy"
    spaced = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in page.column(table, "One thread")]
    assert spaced[0] == "1.25 ms [1.12, 1.38] noisy"
    assert spaced[-1] == "0.250 ms [0.225, 0.275]"
    faster = [cell.partition(" [")[0] for cell in page.column(table, "Times faster, one thread")]
    assert faster == ["reference", "3.0× faster", "4.0× faster", "5.0× faster"]
    assert page.column(table, "Loading")[1].endswith("p95 9.50")
    assert "Energy" not in page.tables[table][0]


def test_every_other_section_shows_its_own_numbers(page: Page) -> None:
    wanted = (
        "quantized.onnx: 1.23 kB, 10,005× smaller and 5.0× faster than the teacher, accuracy 94.0 %",
        "on 200 test pictures",
        "One seed (0)",
        "Noisy timing of teacher on one thread",
        "It loses 6.0 points against the teacher, and the pictures show it: on 12 pictures only the teacher is right",
        "49.8 % of the student's parameters and 57.1 % of its multiply-accumulates are gone",
        "43.2 % after it, 87.6 % after recovery",
        "2 layers got fewer bits, with ranges from 77 calibration pictures. Their weights take 23,457 bytes.",
        "On val 98.3 % of the answers are those of floating point",
        "at most 201 different ones in a channel",
        "1,234 pictures",
        "A <CPU>",
        "birds",
    )
    seen = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert [text for text in wanted if text not in seen] == []


def test_page_needs_no_network(html: str, page: Page) -> None:
    assert len(page.scripts[-2]) > 500_000  # Vega is inside
    assert [place for place in page.loads if not place.startswith(("#", "data:image/png;base64,"))] == []
    assert page.policy.startswith("default-src 'none';")
    assert "connect-src" not in page.policy
    assert "http" not in page.policy
    styles, ours = page.scripts[0], page.scripts[-1]
    assert not [word for word in ("@import", "url(", "http") if word in styles]
    assert not [word for word in ("fetch", "XMLHttpRequest", "import", "WebSocket", "http") if word in ours]
    assert "http" not in page.scripts[1]  # the charts


def test_names_are_text_and_nothing_else(html: str, page: Page) -> None:
    assert "<b>bold" not in html
    assert "A <title>" not in html
    assert "<CPU>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert page.column("Each class", "Class") == list(CLASSES)
    drawn = json.loads(page.scripts[1])["confusion"]
    names = {row["actual"] for layer in (drawn, *drawn["layer"]) for row in layer.get("data", {}).get("values", ())}
    assert names == set(CLASSES[:-1])


def test_class_without_pictures_or_answers_is_said_so(page: Page) -> None:
    assert page.row("never") == ["0", "0", "no test picture", "never predicted", "16.7\N{NO-BREAK SPACE}%"]
    assert "Worst class: Ä & 鳥, F1 20.0" in page.text


@pytest.mark.parametrize("rungs", [[], ["at-8", "at-6"]])
def test_what_learnt_on_begins_with_what_was_calibrated_unless_it_came_down_a_ladder(
    rungs: list[str], tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, seen = World(tmp_path), list[findings.Findings]()
    told = {"recovery": LESSON, "seeds": {"0": {"quantized": 0.876}}, "budget": 3, "val_accuracy_calibrated": 0.321}
    world.write("quantize", **QUANTIZED | told)
    rows = pd.read_csv(world.metrics / "curves/prune.csv")
    lines = [rows.assign(network=name) for name in (*rungs, "quantized", "float", "float-1", "quantized-1")]
    pd.concat(lines).to_csv(world.metrics / "curves/quantize.csv", index=False)
    monkeypatch.setattr(charts, "everything", lambda found, _: seen.append(found) or {})
    assert "Recovery after quantization" in build(world).text
    drawn = learning_charts.curve_rows(seen[0], ("quantized",))
    first = drawn[drawn["line"] == "quantized"]
    assert first["val_accuracy"].tolist() == pytest.approx([*([] if rungs else [32.1]), 25, 50, 75])
    assert first["epoch"][first["kept"]].tolist() == [LESSON["best_epoch"]]
    assert set(drawn["line"][drawn["faint"]]) == {"quantized-1"}


def test_what_learnt_nothing_has_no_curve(page: Page) -> None:
    assert "Recovery after quantization" not in page.text


def test_packed_tensors_and_their_zeros_are_told_where_there_are_some(page: Page, tmp_path: Path, build: Build) -> None:
    assert "Packed" not in page.tables["Size"][0]
    world = World(tmp_path)
    world.change("export", "pruned.packed", 3)
    packed = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in build(world).column("Size", "Packed")]
    assert packed[-2:] == ["3 tensors 37.0 % zeros", "0 tensors 49.4 % zeros"]


def test_a_difference_within_chance_is_none(tmp_path: Path, build: Build) -> None:
    page = build(World(tmp_path, {"quantized": range(3)}))
    assert "It loses 1.5 points against the teacher; no difference is shown." in page.text
    assert page.column("What the pictures can tell apart", "Verdict")[0] == "no difference is shown"


def test_no_examples_and_many_classes(tmp_path: Path, build: Build) -> None:
    names = tuple(f"species number {number}" for number in range(100))
    page = build(World(tmp_path, {"quantized": range(50)}, classes=names, examples=0))
    assert "No pictures were kept" in page.text
    assert len([row for row in page.rows if row[0].startswith("species") and len(row) == 6]) == 100
    assert len([row for row in page.rows if len(row) == 3 and row[0].startswith("species")]) == 12


def test_mistakes_come_first_then_the_least_sure(tmp_path: Path) -> None:
    world = World(tmp_path, {"quantized": range(2, 4)}, examples=5)
    found = examples.read(tmp_path / "answers", world.answers)
    assert [(one.number, one.mistake) for one in found] == [(2, True), (3, True), (0, False), (1, False), (4, False)]


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("prepare", "copies"),
        ("distill", "verdict"),
        ("distill", "control.val_loss"),
        ("evaluate", "quantized.against.pruned.flipped"),
        ("export", "student.largest_difference"),
        ("benchmark", "files.quantized.one_thread.noisy"),
    ],
)
def test_missing_key_stops_the_report(file: str, key: str, world: World, tmp_path: Path, build: Build) -> None:
    broken = World(tmp_path)
    broken.change(file, key, None)
    with pytest.raises(Refusal, match=rf"{file}\.json: {key}: Field required"):
        build(broken)


def test_missing_column_stops_the_report(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    world.answers.drop(columns="control").to_csv(tmp_path / "answers" / "answers.csv", index=False)
    with pytest.raises(Refusal, match=r"answers\.csv has no column control"):
        build(world)


def test_charts_are_valid_vega_lite(page: Page) -> None:
    drawn = json.loads(page.scripts[1])
    assert len(drawn) == 19
    for name in (
        "latency",
        "prune-accuracy",
        "distill-loss",
        "channels",
        "confusion",
        "reliability-pruned",
        "robustness-blur",
    ):
        assert vl_convert.vegalite_to_vega(drawn[name])["marks"], name


def test_numbers_are_never_rounded_to_all_or_nothing() -> None:
    found = [words.percent(value).replace("\N{NO-BREAK SPACE}", "") for value in (1, 0.9999, 0, 0.0001, 0.99949)]
    assert found == ["100.0%", "99.99%", "0.0%", "0.01%", "99.9%"]
    assert [words.faster(times) for times in (43.4, 9.14, 1.04, 0.5)] == [
        "43× faster",
        "9.1× faster",
        "equally fast",
        "2.0× slower",
    ]


def test_report_starts_without_the_heavy_libraries() -> None:
    imported = {
        name.split(".")[0]
        for path in sources.of("stages.report")
        if path.suffix == ".py"
        for name in wiring.imports(sources.ROOT / path)
    }
    assert not imported & {"torch", "torchvision", "brevitas", "sklearn", "onnxruntime", "mlflow"}


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.slow
def test_a_teacher_of_several_members_shows_their_mean_and_one_that_came_trained_nothing(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    world, seen = World(tmp_path, {}), list[findings.Findings]()
    path = world.metrics / "curves/teacher.csv"
    alone = pd.read_csv(path)
    rows = [alone.assign(network=f"teacher-{n + 1}", val_accuracy=alone["val_accuracy"] + n) for n in range(members)]
    pd.concat([alone.head(0), *rows]).to_csv(path, index=False)
    monkeypatch.setattr(charts, "everything", lambda found, _: seen.append(found) or {})
    headings = build(world).text
    monkeypatch.undo()
    names = learning_charts.everything(seen[0]).keys()
    assert {"distill-accuracy", "prune-loss"} < names
    if members:
        mean = learning_charts.curve_rows(seen[0], ("teacher",))
        assert mean["val_accuracy"].tolist() == pytest.approx([75, 100, 125])
        assert {"teacher-accuracy", "teacher-loss"} < names
    else:
        assert not {"teacher-accuracy", "teacher-loss"} & names
    assert ("Labels alone" in headings) == (members > 0)


@pytest.mark.slow
def test_studies_are_shown_where_there_are_some(tmp_path: Path) -> None:
    world = World(tmp_path)
    points = [
        {"experiment": f"run-{t}", "at": {"a <b>parameter</b>": t}, "value": t / 100, "low": -0.01, "high": t / 50}
        | {"verdict": None}
        for t in (1.5, 3)
    ]
    study = {"schema": 1, "title": "A <study>", "x": "a <b>parameter</b>", "y": None, "value": "distill.gain_on_val"}
    study |= {"points": points, "commit": "c" * 40, "machine": {"cpu": "A <CPU>"}, "date": "2026-01-02"}
    files.write_json(world.metrics / "studies/one.json", study)
    html = world.build(params.load(sources.ROOT / "params.yaml"))
    page = Page(html)
    assert page.row("1.5") == ["+1.5", "[−1.0, +3.0]", "1", "not shown", "run-1.5"]
    assert "A <study>" in page.text
    assert "<b>parameter" not in html
    assert f"Gathered 2026-01-02 at {'c' * 12} , on A <CPU>." in page.text
    assert "#studies" in page.loads
    assert vl_convert.vegalite_to_vega(json.loads(page.scripts[1])["study-one"])["marks"]


def test_several_values_of_a_study_stand_side_by_side(tmp_path: Path, build: Build) -> None:
    """Two runs at one place have a deviation; what was not measured at a place is left out."""
    world = World(tmp_path)
    names = ["prune.val_accuracy", "prune.controls.from-scratch.val_accuracy"]

    def point(sparsity: float, *values: float) -> dict[str, Any]:
        found = {"low": None, "high": None, "verdict": None}
        told = {name: found | {"value": value} for name, value in zip(names, values, strict=False)}
        return {"experiment": f"e{sparsity}{values}", "at": {"prune.sparsity": sparsity}, "found": told}

    study = {"schema": 2, "title": "How far", "x": "prune.sparsity", "y": None, "values": names, "commit": "c"}
    study |= {"points": [point(0.25, 0.9, 0.8), point(0.25, 0.7, 0.6), point(0.75, 0.5)]}
    files.write_json(world.metrics / "studies/one.json", study | {"machine": {"cpu": "C"}, "date": "2026-01-02"})
    page = build(world)
    assert page.row("prune.sparsity") == ["val accuracy", "controls from scratch val accuracy"]
    assert page.row("0.25") == [f"{share(0.8)} sd 14.14 n = 2", f"{share(0.7)} sd 14.14 n = 2"]
    assert page.row("0.75") == [share(0.5), ""]
    assert "Of 3 experiments. val accuracy controls from scratch val accuracy" in page.text


def test_without_studies_the_page_has_no_place_for_them(page: Page) -> None:
    assert "#studies" not in page.loads
    assert "lightvision study" not in page.text


def test_every_file_for_other_runtimes_is_told_also_what_was_not_made(page: Page) -> None:
    table = "Files for other runtimes"
    assert page.column(table, "Bytes") == ["130,001", "33,003", ""]
    assert page.column(table, "Accuracy on val") == [share(0.9812), share(0.9789), ""]
    assert page.column(table, "Against its network, points")[0] == "−0.6 [−2.3,\N{NO-BREAK SPACE}+1.0]"
    assert page.column(table, "Same answer")[:2] == [share(0.9944), share(0.9833)]
    assert page.column(table, "Latency here")[1].replace("\N{NO-BREAK SPACE}", " ") == "0.456 ms [0.400, 0.500]"
    told = page.column(table, "What it is")
    assert told[1] == f"full-integer of pruned ExecuTorch 3.4 {share(0.957)} delegated 2 transposes"
    assert told[2] == "no converter of <ncnn>"


def test_each_device_gets_a_file_of_those_that_run_there(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    facts = {"one_thread": {"median": 7.5, "low": 7.25, "high": 7.75, "noisy": True}}
    facts |= {"all_threads": {"median": 2.5, "low": 2.25, "high": 2.75}, "bytes": 12_345}
    machine = {"system": "Linux aarch64", "integer_products": "exact"}
    told = {"device": "pi <5>", "machine": machine, "agreement": 0.95, "files": {"quantized": facts}}
    files.write_json(world.metrics / "devices" / "pi.json", told)
    page = build(world)
    chosen = {row[0]: row[1] for row in page.tables["Which file for which device"]}
    assert chosen["browser"] == "quantized.onnx"
    assert chosen["accelerator of integers alone"] == "none"
    [row] = page.column("Measured on devices", "One thread")
    assert row.replace("\N{NO-BREAK SPACE}", " ") == "7.50 ms [7.25, 7.75] noisy"
    assert page.column("Measured on devices", "Same answer as here") == [share(0.95)]
