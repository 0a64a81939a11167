"""The page says what the stages found, nothing else, also where it is unwelcome; and it needs no network."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from PIL import Image

from stages import evaluate, report
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
LESSON = {"val_accuracy": 0.876, "val_loss": 0.5, "best_epoch": 2, "epochs": 3, "stopped_early": False}


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
        (self.metrics / "studies").mkdir()
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
        lessons = {"teacher": ["teacher"], "distill": ["student", "control"], "prune": ["pruned"], "quantize": []}
        columns = ["network", "epoch", "rate", "train_loss", "val_loss", "val_accuracy"]
        for file, networks in lessons.items():
            epochs = [
                {"network": name, "epoch": epoch, "rate": 1e-3, "train_loss": 2 / epoch, "val_loss": 1 / epoch}
                | {"val_accuracy": epoch / 4}
                for name in networks
                for epoch in (1, 2, 3)
            ]
            pd.DataFrame(epochs, columns=columns).to_csv(self.metrics / "curves" / f"{file}.csv", index=False)

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
        self.write("prepare", classes=4, pictures={"train": 1234, "test": PICTURES}, calibration=77, copies=5)
        self.change("prepare", "rarest_class", 17)
        self.write("train_teacher", **LESSON, parameters=4_000_123, macs=50_000_000)
        self.write("distill", **distilled(LESSON, {"0": (0.876, 0.876)}))
        self.write("prune", **LESSON, val_accuracy_before_recovery=0.432, parameters=200_777, macs=3_000_000)
        self.change("prune", "parameters_removed", 0.498)
        self.change("prune", "of", "parameters")
        self.change("prune", "blocks", {})
        self.change("prune", "steps", {"1": {"removed": 0.498, "val_accuracy": 0.432}})
        self.change("prune", "controls", {"uncut": LESSON, "from-scratch": LESSON | {"val_accuracy": 0.654}})
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
            studies=self.metrics / "studies",
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


def distilled(lesson: dict[str, Any], seeds: Mapping[str, tuple[float, float | None]], **others: Any) -> dict[str, Any]:
    """What distill wrote, with a control for every seed or for none."""
    taught = bool(seeds) and all(control is not None for _, control in seeds.values())
    gains = [student - control for student, control in seeds.values() if control is not None]
    return {
        "student": lesson,
        "control": lesson if taught else None,
        "seeds": {seed: {"student": student, "control": control} for seed, (student, control) in seeds.items()},
        "verdict": "not shown" if taught else "no control",
        "gain_on_val": sum(gains) / len(gains) if gains else None,
        "gain_low": None,
        "gain_high": None,
        "confidence": 0.95,
        "method": "hinton",
        "taught_by": "teacher",
        "advice": "online",
        "parameters": 400_321,
        "macs": 7_000_000,
        "companions": {},
    } | others


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


@pytest.fixture
def alone(tmp_path: Path) -> World:
    """What the stages write with distill.control: false."""
    world = World(tmp_path)
    world.write("distill", **distilled(LESSON, {"0": (0.876, None)}))
    without_control(world)
    return world


def without_control(world: World) -> None:
    world.change("evaluate", "control", None)
    for path in (world.metrics / "classes.csv", world.metrics / "curves/distill.csv"):
        rows = pd.read_csv(path, keep_default_na=False)
        rows[rows["network"] != "control"].to_csv(path, index=False)
    world.answers.drop(columns=["control", "control_confidence"]).to_csv(world.root / "answers/answers.csv")
    folder = world.root / "models/control"
    shutil.rmtree(folder)
    files.write_json(folder / "absent.json", {"reason": "distill.control is false"})


def test_without_a_control_nothing_is_claimed_and_none_is_shown(alone: World, build: Build) -> None:
    page = build(alone)
    assert "No control No twin was trained without the teacher, so that nothing is claimed" in page.text
    assert len(page.row("Accuracy 95")) == len(page.row("Parameters")) == 4
    assert page.row("Kernels")[-1] == "4 of 18 integer"
    assert [row[0] for row in page.rows if row and row[0].endswith("and control")] == []
    remaining = page.text.replace("No control", "").replace("its control's", "")
    assert "control" not in remaining
    assert "McNemar test," not in page.text


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


def test_every_parent_that_is_named_is_the_one_at_hand(tmp_path: Path, build: Build) -> None:
    """A student of its own control names that; a pruned network names the teacher of its recovery too."""
    world = World(tmp_path)
    path = world.root / "models/pruned/model.json"
    card = files.read_json(path)
    files.write_json(path, card | {"parents": card["parents"] | {"teacher": "another"}})
    with pytest.raises(Refusal, match=r"pruned was not made from .*teacher"):
        build(world)


@pytest.mark.parametrize("taught_by", ["itself", "a peer"])
def test_a_student_that_no_teacher_taught_has_none_among_its_parents(
    taught_by: str, tmp_path: Path, build: Build
) -> None:
    world = World(tmp_path)
    peer = LESSON | {"val_accuracy": 0.654, "control": LESSON | {"val_accuracy": 0.543}}
    told = distilled(LESSON, {"0": (0.876, 0.876)}, taught_by=taught_by, companions={"a friend": peer})
    world.write("distill", **told)
    with pytest.raises(Refusal, match=r"student was not made from .*teacher"):
        build(world)
    meet_parents(world, without="teacher")
    page = build(world)
    assert "The student also hears " + taught_by in page.text
    assert f"hinton, taught by {taught_by}" in page.text
    assert f"The student was taught by {taught_by}" in page.text
    assert page.row("a friend") == [share(0.654), "2 of 3", share(0.543)]
    world.write("distill", **told | {"taught_by": "teacher"})
    with pytest.raises(Refusal, match=r"student was not made from .*teacher"):
        build(world)


def meet_parents(world: World, without: str = "") -> None:
    """Each model names its parents as they are now, but one that is left out."""
    for path in (world.root / "models" / name / "model.json" for name in NETWORKS):
        if path.is_file():
            card = files.read_json(path)
            parents = {name: files.digest(path.parents[1] / name) for name in card["parents"] if name != without}
            files.write_json(path, card | {"parents": parents})


def test_a_teacher_that_goes_on_as_it_is_was_not_distilled(alone: World, build: Build) -> None:
    lesson = LESSON | {"best_epoch": 0, "epochs": 0}
    alone.write("distill", **distilled(lesson, {}, taught_by="nobody"))
    path = alone.metrics / "curves/distill.csv"
    pd.read_csv(path).head(0).to_csv(path, index=False)
    with pytest.raises(Refusal, match=r"student was not made from .*teacher"):
        build(alone)
    card = files.read_json(alone.root / "models/student/model.json") | {"weights_sha256": "teacher"}
    files.write_json(alone.root / "models/student/model.json", card)
    meet_parents(alone)
    page = build(alone)
    assert "No control The teacher itself goes on, as it is: nothing was distilled" in page.text
    assert "The student also hears" not in page.text
    assert "The student is the teacher, weight for weight" in page.text
    assert [row[3] for row in page.rows if row[0] == "student"] == ["not trained"]


def test_other_seeds_are_faint_lines_of_their_own(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, seen = World(tmp_path), list[findings.Findings]()
    path = world.metrics / "curves/distill.csv"
    first = pd.read_csv(path)
    again = first.assign(network=first["network"] + "-1", val_accuracy=first["val_accuracy"] / 2)
    pd.concat([first, again]).to_csv(path, index=False)
    monkeypatch.setattr(charts, "everything", lambda found: seen.append(found) or {})
    build(world)
    rows = charts.curve_rows(seen[0], ("student", "control"))
    assert rows.groupby("line")["faint"].all().to_dict() == {
        "student": False,
        "control": False,
        "student-1": True,
        "control-1": True,
    }
    assert rows[rows["kept"]]["line"].tolist() == ["student", "control"]
    assert rows[rows["line"] == "student-1"]["val_accuracy"].tolist() == pytest.approx([12.5, 25, 37.5])


@pytest.mark.parametrize("learnt", [True, False])
def test_recovery_after_quantization_is_shown_where_there_was_one(learnt: bool, tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    if learnt:
        world.change("quantize", "recovery", LESSON | {"val_accuracy_before_recovery": 0.321})
        rows = pd.read_csv(world.metrics / "curves/prune.csv").assign(network="quantized")
        rows.to_csv(world.metrics / "curves/quantize.csv", index=False)
    page = build(world)
    seen = page.text.replace("\N{NO-BREAK SPACE}", " ")
    told = "The rounded network learnt on: accuracy on val 32.1 % before, 87.6 % after the best of 3 epochs."
    assert (told in seen) == learnt
    assert ("Recovery after quantization" in seen) == learnt


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
        ("distill", "verdict"),
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
    assert len(drawn) == 11
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


def test_without_studies_the_page_has_no_place_for_them(page: Page) -> None:
    assert "#studies" not in page.loads
    assert "lightvision study" not in page.text


def test_evaluate_leaves_out_a_control_that_is_absent(
    prepared: Path, settings: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(folder: Path, split: Any, here: Any) -> np.ndarray:
        assert folder.name != "control"
        return np.eye(len(split.facts.classes))[split.labels] * 0.7 + 0.1

    monkeypatch.setattr(evaluate, "probabilities", answers)
    files.write_json(tmp_path / "control/absent.json", {"reason": "distill.control is false"})
    paths: dict[str, Any] = {name: tmp_path / name for name in (*NETWORKS, "answers")}
    paths |= {name: tmp_path / f"{name}.csv" for name in ("classes", "confusion")}
    evaluate.main(
        run=Run(tmp_path / "run"),
        **settings.pick(("evaluate", "compute", "seed")),
        test=prepared / "test",
        **paths,
        metrics=tmp_path / "evaluate.json",
    )
    found = findings.read(tmp_path / "evaluate.json", findings.Evaluated)
    assert found.control is None
    assert found.student.agreement == found.student.accuracy == 1
    assert set(findings.read_classes(paths["classes"])["network"]) == set(SHIPPED)
    assert "control" not in findings.read_answers(paths["answers"], control=False)
