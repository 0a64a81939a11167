"""The page says what the stages found, nothing else, also where it is unwelcome; and it needs no network."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from PIL import Image

from stages import report
from stages.core import params, words
from stages.core.reporting import charts, comparison, examples, findings, lineage, rendering
from stages.core.running import files, sources
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from tests import wiring

NETWORKS = ("teacher", "control", "student", "pruned", "quantized")
SHIPPED = ("teacher", "student", "pruned", "quantized")
PARENTS = {"control": "teacher", "student": "teacher", "pruned": "student", "quantized": "pruned"}
CLASSES = ("<b>bold</b>", "NA", "Ä & 鳥", "never")
PICTURES = 200


@dataclass
class World:
    """Inputs of the report with numbers that are all different; `wrong` are the pictures each network gets wrong."""

    root: Path
    wrong: dict[str, range] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    examples: int = 3

    def __post_init__(self) -> None:
        self.metrics = self.root / "metrics"
        labels = [self.classes[number % (len(self.classes) - 1)] for number in range(PICTURES)]
        following = dict(zip(self.classes, (*self.classes[1:-1], *self.classes[:2]), strict=True))
        self.answers = pd.DataFrame({"picture": range(PICTURES), "label": labels})
        for name in NETWORKS:
            wrong = self.wrong.get(name, range(0))
            answers = [following[label] if at in wrong else label for at, label in enumerate(labels)]
            self.answers[name] = answers
            self.answers[f"{name}_confidence"] = np.linspace(0.5, 0.999, PICTURES).round(6)
        self._write_tables()
        self._write_models()
        self._write_early()
        self._write_late()

    def _write_tables(self) -> None:
        (self.root / "answers").mkdir(parents=True)
        (self.metrics / "curves").mkdir(parents=True)
        self.answers.to_csv(self.root / "answers" / "answers.csv", index=False)
        for picture in range(self.examples):
            Image.new("RGB", (8, 8)).save(self.root / "answers" / f"{picture:06}.png")
        both = self.answers[["label", "quantized"]].set_axis(["actual", "predicted"], axis=1)
        both.to_csv(self.metrics / "confusion.csv", index=False)
        counts = self.answers["label"].value_counts()
        rows = [
            {"network": network, "class": name, "precision": 0.5, "recall": 0.25, "f1": 1 / (3 + at)}
            | {"pictures": counts.get(name, 0)}
            for network in NETWORKS
            for at, name in enumerate(self.classes)
        ]
        pd.DataFrame(rows).to_csv(self.metrics / "classes.csv", index=False)
        for file, networks in {"teacher": ["teacher"], "distill": ["student", "control"], "prune": ["pruned"]}.items():
            epochs = [
                {"network": name, "epoch": epoch, "rate": 1e-3, "train_loss": 2 / epoch, "val_loss": 1 / epoch}
                | {"val_accuracy": epoch / 4}
                for name in networks
                for epoch in (1, 2, 3)
            ]
            pd.DataFrame(epochs).to_csv(self.metrics / "curves" / f"{file}.csv", index=False)

    def _write_models(self) -> None:
        for name in NETWORKS:
            folder = self.root / "models" / name
            parents = {PARENTS[name]: files.digest(folder.parent / PARENTS[name])} if name in PARENTS else {}
            card = {
                "architecture": {"name": "residual_cnn", "blocks": 2},
                "facts": {
                    "dataset": "birds",
                    "classes": self.classes,
                    "image_size": 8,
                    "mean": [0.5],
                    "std": [0.5],
                    "fit": "crop",
                },
                "quantization": {"name": "static_int8", "percentile": 99.9} if name == "quantized" else None,
                "parents": parents,
                "origin": {},
                "weights_sha256": name,
            }
            files.write_json(folder / "model.json", card)
        files.write_text(self.root / "shipped" / "quantized.onnx", "a file")

    def _write_early(self) -> None:
        lesson = {"val_accuracy": 0.876, "val_loss": 0.5, "best_epoch": 2, "epochs": 3, "stopped_early": False}
        self.write("prepare", classes=4, pictures={"train": 1234, "test": PICTURES}, calibration=77, copies=5)
        self.change("prepare", "rarest_class", 17)
        self.write("train_teacher", **lesson, parameters=4_000_123, macs=50_000_000)
        self.write("distill", student=lesson, control=lesson, gain_on_val=0.0, parameters=400_321, macs=7_000_000)
        self.write("prune", **lesson, val_accuracy_before_recovery=0.432, parameters=200_777, macs=3_000_000)
        self.change("prune", "parameters_removed", 0.498)
        self.change("prune", "macs_removed", 0.571)
        self.change("prune", "channels", {"conv1": {"before": 16, "after": 9}, "head": {"before": 4, "after": 4}})
        self.write("quantize", val_accuracy=0.871, val_accuracy_before=0.874, val_agreement=0.983)
        for key, value in {"calibration_pictures": 77, "integer_layers": 18, "most_levels_in_a_channel": 201}.items():
            self.change("quantize", key, value)

    def _write_late(self) -> None:
        judged: dict[str, Any] = {"pictures": PICTURES}
        shipped: dict[str, Any] = {}
        parity: dict[str, Any] = {}
        for at, name in enumerate(NETWORKS):
            accuracy = np.mean(self.answers[name].to_numpy() == self.answers["label"].to_numpy()).item()
            limits = {"accuracy": accuracy, "accuracy_low": accuracy - 0.031, "accuracy_high": min(1, accuracy + 0.017)}
            scores = {"loss": 0.1111 * (at + 1), "macro_f1": 0.8 + at / 100, "calibration_error": 0.01 * (at + 1)}
            agreement = {f"agreement_with_{PARENTS[name]}": 0.9 + at / 100} if name in PARENTS else {}
            judged[name] = limits | scores | agreement
            if name in SHIPPED:
                size = 12_345_678 // 10**at
                shipped[name] = limits | {
                    "bytes": size,
                    "weights": "float32",
                    "parameters": 1000 + at,
                    "macs": 5000 + at,
                }
                shipped[name] |= {"integer_kernels": at, "float_kernels": 18 - at}
                shipped[name] |= {"one_thread": timing(1.25 / (at + 1)), "all_threads": timing(0.75 / (at + 1))}
                parity[name] = {"agreement": 0.99 + at / 1000, "accuracy": accuracy, "accuracy_drop": 0.001 * at}
                parity[name] |= {"largest_difference": 2.5e-6}
        self.write("evaluate", **judged)
        self.write("export", **parity)
        self.write(
            "benchmark", machine={"cpu": "A <CPU>", "instructions": ["a", "b"]}, pictures=PICTURES, files=shipped
        )

    def write(self, name: str, **content: Any) -> None:
        files.write_json(self.metrics / f"{name}.json", content)

    def change(self, name: str, path: str, value: Any) -> None:
        """`value` None removes the key."""
        content = files.read_json(self.metrics / f"{name}.json")
        *where, key = path.split(".")
        place = content
        for part in where:
            place = place[part]
        place[key] = value
        if value is None:
            del place[key]
        self.write(name, **content)

    def build(self, settings: params.Params, title: str = "A <title>") -> str:
        models, page = self.root / "models", self.root / "report.html"
        inputs: dict[str, Any] = {name: self.metrics / f"{file}.json" for name, file in METRICS.items()}
        inputs |= {name: models / name for name in ("teacher", "student", "control")}
        report.main(
            run=Run(self.root / "run"),
            report=params.Report(title=title),
            **settings.pick(("prune", "evaluate", "export", "benchmark", "seed")),
            **inputs,
            classes=self.metrics / "classes.csv",
            confusion=self.metrics / "confusion.csv",
            curves=self.metrics / "curves",
            answers=self.root / "answers",
            pruned_model=models / "pruned",
            quantized_model=models / "quantized",
            shipped=self.root / "shipped",
            page=page,
        )
        return page.read_text(encoding="utf-8")


METRICS = {
    "prepared": "prepare",
    "trained": "train_teacher",
    "distilled": "distill",
    "pruned": "prune",
    "quantized": "quantize",
    "evaluated": "evaluate",
    "exported": "export",
    "benchmarked": "benchmark",
}


def timing(median: float) -> dict[str, float | bool]:
    times = {"median": median, "low": median * 0.9, "high": median * 1.1, "p95": median * 2, "noisy": median == 1.25}
    return times | {"times_faster_than_teacher": 1.25 / median}


class Page(HTMLParser):
    """What a person sees, the rows of tables, what a browser would load, and what each script holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._inside = ""
        self._in_cell = False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.loads += [given[name] for name in ("src", "href", "srcset", "data", "action", "poster") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts.append("")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data
            return
        self.words.append(data)
        if self._in_cell and data.strip():
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def row(self, label: str) -> list[str]:
        [found] = [row for row in self.rows if row and row[0].startswith(label)]
        return found[1:]


Build = Callable[[World], Page]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    """Without charts and Vega, which take most of the time."""
    monkeypatch.setattr(rendering, "vega", lambda: "")
    monkeypatch.setattr(charts, "everything", lambda findings: {})
    defaults = params.load(sources.ROOT / "params.yaml")
    return lambda world: Page(world.build(defaults))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    wrong = {name: range(3 * at) for at, name in enumerate(NETWORKS)}
    return World(tmp_path_factory.mktemp("world"), wrong)


@pytest.fixture(scope="module")
def html(world: World) -> str:
    return world.build(params.load(sources.ROOT / "params.yaml"))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def share(value: float) -> str:
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"


def test_every_step_shows_its_own_numbers(world: World, page: Page) -> None:
    judged = files.read_json(world.metrics / "evaluate.json")
    shipped = files.read_json(world.metrics / "benchmark.json")["files"]
    for cell, name in zip(page.row("Accuracy 95"), NETWORKS, strict=True):
        low, high = (f"{judged[name][f'accuracy_{end}'] * 100:.1f}" for end in ("low", "high"))
        assert cell == f"{share(judged[name]['accuracy'])} [{low},\N{NO-BREAK SPACE}{high}]"
    assert page.row("Loss") == [f"{judged[name]['loss']:.3f}" for name in NETWORKS]
    assert page.row("Macro F1") == [share(judged[name]["macro_f1"]) for name in NETWORKS]
    assert page.row("Calibration error") == [share(judged[name]["calibration_error"]) for name in NETWORKS]
    agreements = [
        f"{share(judged[name][f'agreement_with_{parent}'])} with {parent}" for name, parent in PARENTS.items()
    ]
    assert page.row("Agreement") == ["no parent", *agreements]
    for label, key in (("Parameters", "parameters"), ("File ONNX", "bytes"), ("Kernels", "integer_kernels")):
        for cell, name in zip(page.row(label), NETWORKS, strict=True):
            assert f"{shipped[name][key]:,}" in cell if name in shipped else cell == "not shipped" or "400,321" in cell
    assert page.row("Kernels")[-1] == "4 of 18 integer"
    assert page.row("One thread")[0] == "1.25\N{NO-BREAK SPACE}ms [1.12, 1.38] p95 2.50 noisy"
    assert page.row("One thread")[4] == "0.250\N{NO-BREAK SPACE}ms [0.225, 0.275] p95 0.500"
    assert page.row("Against the teacher") == [
        "reference",
        "not shipped",
        *(f"{at}.0× faster {at * 5 / 3:.1f}× faster" for at in (3, 4, 5)),
    ]


def test_every_other_section_shows_its_own_numbers(page: Page) -> None:
    wanted = (
        "quantized.onnx: 1.23 kB, 10,005× smaller and 5.0× faster than the teacher, accuracy 94.0 %",
        "on 200 test pictures",
        "One seed (0)",
        "Noisy timing of teacher on one thread",
        "It loses 6.0 points against the teacher, and the pictures show it: on 12 pictures only the teacher is right",
        "49.8 % of the student's parameters and 57.1 % of its multiply-accumulates are gone",
        "43.2 % after it, 87.6 % after recovery",
        "18 layers became integer, with ranges from 77 calibration pictures",
        "87.4 % before, 87.1 % after; 98.3 % of the answers are the same",
        "more than 201 values",
        "1,234 pictures",
        "A <CPU>",
        "birds",
    )
    seen = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert [text for text in wanted if text not in seen] == []
    assert page.row("quantized.onnx") == [
        "99.4\N{NO-BREAK SPACE}%",
        "−0.4",
        "2.5\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}10⁻⁶",
        "4 of 18 integer",
        "94.0\N{NO-BREAK SPACE}%",
        "94.0\N{NO-BREAK SPACE}%",
        "passed",
    ]


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
    assert [row[0] for row in page.rows if row[0] in CLASSES and len(row) == 6] == list(CLASSES)
    drawn = json.loads(page.scripts[1])["confusion"]
    names = {row["actual"] for layer in (drawn, *drawn["layer"]) for row in layer.get("data", {}).get("values", ())}
    assert names == set(CLASSES[:-1])


def test_class_without_pictures_or_answers_is_said_so(page: Page) -> None:
    assert page.row("never") == ["0", "0", "no test picture", "never predicted", "16.7\N{NO-BREAK SPACE}%"]
    assert "Worst class: Ä & 鳥, F1 20.0" in page.text


@pytest.mark.parametrize(
    ("student", "control", "word", "reason"),
    [
        (range(0), range(20), "Helps", "On 20 test pictures only the student is right, on 0 only the control"),
        (range(20), range(0), "Hurts", "On 0 test pictures only the student is right, on 20 only the control"),
        (range(5), range(5, 11), "Not shown", "On 6 test pictures only the student is right, on 5 only the control"),
        (range(5), range(5), "Not shown", "Student and control are right on the very same test pictures"),
    ],
)
def test_distillation_is_judged_by_the_pictures(
    student: range, control: range, word: str, reason: str, tmp_path: Path, build: Build
) -> None:
    page = build(World(tmp_path, {"student": student, "control": control}))
    assert f"{word} {reason}" in page.text


def test_a_worse_file_is_called_worse(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path, {"quantized": range(10)})
    world.change("benchmark", "files.quantized.bytes", 24_691_356)
    world.change("benchmark", "files.quantized.one_thread.times_faster_than_teacher", 0.5)
    world.change("export", "quantized.accuracy_drop", 0.5)
    page = build(world)
    seen = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "24.69 MB, 2.0× larger and 2.0× slower than the teacher, accuracy 95.0 %" in seen
    assert "It loses 5.0 points against the teacher, and the pictures show it: on 10 pictures only the teacher" in seen
    assert page.row("quantized and teacher")[-1] == "the first is worse"
    assert page.row("quantized.onnx")[-1] == "not passed"


def test_a_difference_within_chance_is_none(tmp_path: Path, build: Build) -> None:
    page = build(World(tmp_path, {"quantized": range(3)}))
    assert "It loses 1.5 points against the teacher; no difference is shown." in page.text
    assert page.row("quantized and teacher")[-1] == "no difference is shown"


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
        ("distill", "control.val_loss"),
        ("evaluate", "quantized.agreement_with_pruned"),
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


def test_wrong_parent_stops_the_report(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    shutil.copy(tmp_path / "models/student/model.json", tmp_path / "models/pruned/model.json")
    with pytest.raises(Refusal, match=r"pruned was not made from .*student"):
        build(world)
    assert lineage.PARENTS == PARENTS


def test_mcnemar_is_the_binomial_test_of_the_differing_pictures() -> None:
    answers = pd.DataFrame({"label": ["a"] * 30, "one": ["b"] * 9 + ["a"] * 21, "two": ["a"] * 28 + ["b"] * 2})
    found = comparison.compare(answers, "one", "two", 0.95)
    tail = sum(math.comb(11, count) for count in (0, 1, 2)) / 2**11
    assert (found.lost, found.won, found.difference) == (9, 2, -7 / 30)
    assert found.p == pytest.approx(2 * tail)
    assert not found.shown
    assert comparison.compare(answers, "one", "two", 0.9).verdict == "the first is worse"


def test_interval_of_a_difference_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    draws = generator.multinomial(150, (0.06, 0.02, 0.92), size=2000)
    covered = [
        low < -0.04 < high
        for low, high in (comparison.difference_interval(int(draw[0]), int(draw[1]), 150, 0.95) for draw in draws)
    ]
    assert 0.94 < np.mean(covered) < 0.98


def test_front_holds_what_nothing_beats() -> None:
    rows = [
        {"network": "a", "accuracy": 99.0, "cost": 1.0},
        {"network": "b", "accuracy": 98.0, "cost": 2.0},
        {"network": "c", "accuracy": 99.5, "cost": 3.0},
        {"network": "d", "accuracy": 99.5, "cost": 4.0},
    ]
    assert charts.front(rows, "cost") == ["a", "c"]


def test_charts_are_valid_vega_lite(page: Page) -> None:
    drawn = json.loads(page.scripts[1])
    assert len(drawn) == 10
    for name in ("latency", "prune-accuracy", "distill-loss", "channels", "confusion"):
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
def test_a_teacher_of_several_members_shows_their_mean_and_one_that_came_trained_nothing(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    world, seen = World(tmp_path, {}), list[findings.Findings]()
    path = world.metrics / "curves/teacher.csv"
    alone = pd.read_csv(path)
    rows = [alone.assign(network=f"teacher-{n + 1}", val_accuracy=alone["val_accuracy"] + n) for n in range(members)]
    pd.concat([alone.head(0), *rows]).to_csv(path, index=False)
    monkeypatch.setattr(charts, "everything", lambda found: seen.append(found) or {})
    headings = build(world).text
    monkeypatch.undo()
    names = charts.everything(seen[0]).keys()
    assert {"distill-accuracy", "prune-loss"} < names
    if members:
        mean = charts.curve_rows(seen[0], ("teacher",))
        assert mean["val_accuracy"].tolist() == pytest.approx([75, 100, 125])
        assert {"teacher-accuracy", "teacher-loss"} < names
    else:
        assert not {"teacher-accuracy", "teacher-loss"} & names
    assert ("Labels alone" in headings) == (members > 0)


@pytest.mark.parametrize(
    ("network", "origin", "expected"),
    [
        (
            params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1),
            "",
            "residual_cnn: blocks 2, hidden_layers 1",
        ),
        (
            params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 2}),
            "w.pth",
            "timm: model vit_tiny_patch16_224, depth 2; begun with w.pth",
        ),
        (
            params.Ensemble(
                name="ensemble",
                members=(params.ResNet9(name="resnet9", width=0.5), params.ViT(name="vit_tiny", patch=4)),
            ),
            "",
            "ensemble of resnet9: width 0.5 and vit_tiny: patch 4",
        ),
    ],
)
def test_any_network_is_said_as_a_person_would(
    world: World, network: params.Network, origin: str, expected: str
) -> None:
    card = files.read_json(world.root / "models/teacher/model.json")
    card |= {"architecture": network.model_dump(mode="json"), "origin": {"weights": origin}}
    assert lineage.describe(findings.Model.model_validate(card)) == expected
