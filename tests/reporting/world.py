"""A world whose numbers are all different, and its page as a person or a browser reads it."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stages import report
from stages.core import params
from stages.core.running import files
from stages.core.running.journal import Run

NETWORKS = ("teacher", "control", "student", "pruned", "quantized")


SHIPPED = ("teacher", "student", "pruned", "quantized")


PARENTS = {"control": "teacher", "student": "teacher", "pruned": "student", "quantized": "pruned"}


CLASSES = ("<b>bold</b>", "NA", "Ä & 鳥", "never")


PICTURES = 200


LESSON = {"val_accuracy": 0.876, "val_loss": 0.5, "best_epoch": 2, "epochs": 3, "stopped_early": False}
PRUNED: dict[str, Any] = {
    **LESSON,
    "val_accuracy_before_recovery": 0.432,
    "before": {"parameters": 400_321, "macs": 7_000_000, "bytes": 1_601_284},
    "after": {"parameters": 200_777, "macs": 3_000_000, "bytes": 803_108, "nonzero": 200_777},
    "parameters_removed": 0.498,
    "macs_removed": 0.571,
    "bytes_removed": 0.499,
    "zeros": 0.0,
    "of": "parameters",
    "blocks": {},
    "steps": {"1": {"removed": 0.498, "zeros": 0.0, "val_accuracy": 0.432}},
    "controls": {"uncut": LESSON, "from-scratch": LESSON | {"val_accuracy": 0.654}},
    "seeds": {"0": {"pruned": 0.876, "uncut": 0.876, "from-scratch": 0.654}},
    "against": {
        "uncut": {"gain": 0.0, "low": None, "high": None, "verdict": "not shown"},
        "from-scratch": {"gain": 0.222, "low": None, "high": None, "verdict": "not shown"},
    },
    "confidence": 0.95,
    "channels": {"conv1": {"before": 16, "after": 9}, "head": {"before": 4, "after": 4}},
    "heads": {},
    "zeros_by_layer": {"conv1": 0.0, "head": 0.0},
}
METHOD: dict[str, Any] = {
    "name": "integer",
    "weights": 4,
    "activations": 7,
    "ends": 8,
    "layers": {},
    "keep": [],
    "scales": "channel",
    "zero_points": True,
    "range": {"name": "percentile", "percentile": 99.9},
    "rounding": {"name": "nearest"},
    "equalize_iterations": 20,
    "correct": "bias",
}
QUANTIZED: dict[str, Any] = {
    "method": "integer",
    "val_accuracy": 0.871,
    "val_accuracy_before": 0.874,
    "val_accuracy_calibrated": 0.871,
    "val_agreement": 0.983,
    "calibration_pictures": 77,
    "zeros_before": 0.0,
    "zeros": 0.0,
    "weight_bytes": 23_457,
    "tried": [],
    "choices": [],
    "alone": {},
    "layers": {
        "first": {"bits": 8, "weights": 433, "levels": 201, "zeros": 0.0, "error": None},
        "last": {"bits": 4, "weights": 1234, "levels": 15, "zeros": 0.0, "error": None},
    },
    "flows": {"relu.act_quant": 7, "x_quant.act_quant": 7},
    "recovery": None,
    "seeds": {},
    "against": {},
    "budget": 0,
    "confidence": 0.95,
}
OPERATORS: dict[str, Any] = {
    "integer": {
        "products": {"QLinearConv": 16, "QGemm": 2},
        "additions": {"QLinearAdd": 6},
        "pooling": {"QLinearGlobalAveragePool": 1},
        "others": {"Flatten": 3},
    },
    "floating": {"products": {"Conv": 1}, "additions": {}, "pooling": {}, "others": {"Mul": 5}},
    "conversions": {"DequantizeLinear": 4},
    "ends": {"Cast": 7, "QuantizeLinear": 2},
    "first_is_integer": True,
    "last_is_integer": True,
}
MACHINE = {
    "cpu": "A <CPU>",
    "instructions": ["a", "b"],
    "integer_products": "exact",
    "integer_products_because": "VNNI",
}


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
        self.scan([])

    def scan(self, rows: list[tuple[str, float, float, float]]) -> None:
        """What each layer alone bears, as prune writes it."""
        columns = ["layer", "share", "val_accuracy", "val_loss"]
        pd.DataFrame(rows, columns=columns).to_csv(self.metrics / "sensitivity.csv", index=False)

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
                "quantization": METHOD if name == "quantized" else None,
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
        self.write("prune", **PRUNED)
        self.write("quantize", **QUANTIZED)

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
                shipped[name] |= {"integer_kernels": at, "float_kernels": 18 - at, "load_milliseconds": 3.25 + at}
                shipped[name] |= {"one_thread": timing(1.25 / (at + 1)), "all_threads": timing(0.75 / (at + 1))}
                parity[name] = {"agreement": 0.99 + at / 1000, "accuracy": accuracy, "accuracy_drop": 0.001 * at}
                parity[name] |= {"largest_difference": 2.5e-6, "tensor_bytes": 8000 // (at + 1)}
                parity[name] |= {"zeros": 0.1234 * at, "packed": 0, "bytes": size, "ideal_bytes": size}
                parity[name] |= {"drop_low": 0.001 * at - 0.0123, "drop_high": 0.001 * at + 0.0045}
        parity["quantized"] |= {"saturates": 0, "levels": 201, "operators": OPERATORS}
        self.write("evaluate", **judged)
        self.write("export", **parity)
        self.write("benchmark", machine=MACHINE, pictures=PICTURES, files=shipped)

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
            report=settings.report.model_copy(update={"title": title}),
            **settings.pick(("prune", "quantize", "evaluate", "export", "benchmark", "seed")),
            **inputs,
            sensitivity=self.metrics / "sensitivity.csv",
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


def without_control(world: World) -> None:
    world.change("evaluate", "control", None)
    for path in (world.metrics / "classes.csv", world.metrics / "curves/distill.csv"):
        rows = pd.read_csv(path, keep_default_na=False)
        rows[rows["network"] != "control"].to_csv(path, index=False)
    world.answers.drop(columns=["control", "control_confidence"]).to_csv(world.root / "answers/answers.csv")
    folder = world.root / "models/control"
    shutil.rmtree(folder)
    files.write_json(folder / "absent.json", {"reason": "distill.control is false"})


def meet_parents(world: World, without: str = "") -> None:
    """Each model names its parents as they are now, but one that is left out."""
    for path in (world.root / "models" / name / "model.json" for name in NETWORKS):
        if path.is_file():
            card = files.read_json(path)
            parents = {name: files.digest(path.parents[1] / name) for name in card["parents"] if name != without}
            files.write_json(path, card | {"parents": parents})


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


def share(value: float) -> str:
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"
