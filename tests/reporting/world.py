"""A world whose numbers are all different: what the stages before the report wrote."""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stages import report
from stages.core import params
from stages.core.running import files
from stages.core.running.journal import Run
from tests.reporting.numbers import (
    BENCHMARK,
    CLASSES,
    CONVERT,
    LESSON,
    MACHINE,
    METHOD,
    NETWORKS,
    OPERATORS,
    PARENTS,
    PICTURES,
    PRUNED,
    QUANTIZED,
    SHIPPED,
    distilled,
    judged,
    measured,
)
from tests.reporting.reader import Page


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
        names = [f"birds/{number}.png" for number in range(PICTURES)]
        self.answers = pd.DataFrame({"picture": range(PICTURES), "name": names, "label": labels})
        for name in NETWORKS:
            wrong = self.wrong.get(name, range(0))
            answers = [following[label] if at in wrong else label for at, label in enumerate(labels)]
            self.answers[name] = answers
            self.answers[f"{name}_confidence"] = np.linspace(0.5, 0.999, PICTURES).round(6)
        self._write_tables()
        self._write_judged()
        self._write_models()
        self._write_early()
        self._write_late()

    def _write_tables(self) -> None:
        (self.root / "answers").mkdir(parents=True)
        (self.metrics / "curves").mkdir(parents=True)
        (self.metrics / "studies").mkdir()
        (self.metrics / "sweeps").mkdir()
        (self.metrics / "devices").mkdir()
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

    def _write_judged(self) -> None:
        """What evaluate wrote beside its numbers; networks look where nobody could tell."""
        limits = {"accuracy_low": 0.2, "accuracy_high": 0.99}
        bins = [
            {"network": name, "bin": place, "from": place / 4, "to": (place + 1) / 4, "pictures": 20 + 70 * (place - 2)}
            | {"confidence": place / 4 + 0.2, "accuracy": place / 4 + at / 100, **limits}
            for at, name in enumerate(NETWORKS)
            for place in (2, 3)
        ]
        pd.DataFrame(bins).to_csv(self.metrics / "reliability.csv", index=False)
        spoilt = [
            {"network": name, "kind": kind, "severity": severity, "amount": amount, "pictures": PICTURES}
            | {"accuracy": 0.9 - severity / 5 - at / 50, **limits}
            for at, name in enumerate(NETWORKS)
            for kind in ("noise", "blur")
            for severity, amount in ((0, 0), (1, 0.04), (2, 0.18))
        ]
        pd.DataFrame(spoilt).to_csv(self.metrics / "robustness.csv", index=False)
        self.group({})
        self.look({"teacher": None, "student": None}, "no layer of them has a place", 0)

    def group(self, groups: dict[str, int]) -> None:
        """Cameras, with how many of their pictures each network gets right of twenty."""
        columns = ["network", "column", "group", "pictures", "accuracy", "accuracy_low", "accuracy_high"]
        rows = [
            (name, "camera", group, 20, right / 20, right / 20 - 0.1, right / 20 + 0.05)
            for name in NETWORKS
            for group, right in groups.items()
        ]
        pd.DataFrame(rows, columns=columns).to_csv(self.metrics / "subgroups.csv", index=False)

    def look(self, layers: dict[str, str | None], reason: str, count: int) -> None:
        """Teacher and student, as they are asked where they look."""
        folder = self.root / "answers/attention"
        chosen = self.answers.head(count)
        pictures = [
            {"picture": one["picture"], "label": one["label"]}
            | {key: one[key] for who in ("teacher", "student") for key in (who, f"{who}_confidence")}
            for one in chosen.to_dict("records")
        ]
        files.write_json(folder / "attention.json", {"layers": layers, "reason": reason, "pictures": pictures})
        for picture in range(count):
            for ending in ("", *(f"-{who}" for who, layer in layers.items() if layer)):
                Image.new("RGB", (8, 8), (picture, len(ending), 0)).save(folder / f"{picture:06}{ending}.png")

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
        told: dict[str, Any] = {"pictures": PICTURES, "test": "t" * 64, "top": 3, "confidence": 0.95}
        shipped: dict[str, Any] = {}
        parity: dict[str, Any] = {}
        right = {name: self.answers[name].to_numpy() == self.answers["label"].to_numpy() for name in NETWORKS}
        for at, name in enumerate(NETWORKS):
            others = {PARENTS[name], "teacher"} if name in PARENTS else set[str]()
            differ = {
                other: (int((right[other] & ~right[name]).sum()), int((right[name] & ~right[other]).sum()))
                for other in sorted(others)
            }
            told[name] = judged(at, int(right[name].sum()), differ, self.classes)
            if name in SHIPPED:
                limits = {key: told[name][key] for key in ("accuracy", "accuracy_low", "accuracy_high")}
                size = 12_345_678 // 10**at
                shipped[name] = measured(at, limits, size)
                parity[name] = {"agreement": 0.99 + at / 1000, "accuracy": 0.9876 - 0.001 * at}
                parity[name] |= {"accuracy_drop": 0.001 * at, "largest_difference": 2.5e-6}
                parity[name] |= {"tensor_bytes": 8000 // (at + 1), "bytes": size, "ideal_bytes": size}
                parity[name] |= {"zeros": 0.1234 * at, "packed": 0}
                parity[name] |= {"drop_low": 0.001 * at - 0.0123, "drop_high": 0.001 * at + 0.0045}
        parity["quantized"] |= {"saturates": 0, "levels": 201, "operators": OPERATORS}
        self.write("evaluate", **told)
        self.write("export", **parity)
        self.write("convert", **CONVERT)
        self.write("benchmark", **BENCHMARK, machine=MACHINE, pictures=PICTURES, files=shipped)

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
        with contextlib.chdir(self.root):  # where no git and no dvc.lock tell of it
            self._report(settings, title, inputs, page)
        return page.read_text(encoding="utf-8")

    def _report(self, settings: params.Params, title: str, inputs: dict[str, Any], page: Path) -> None:
        models = self.root / "models"
        report.main(
            run=Run(self.root / "run"),
            report=settings.report.model_copy(update={"title": title}),
            **settings.pick(("prune", "quantize", "evaluate", "export", "benchmark", "seed")),
            **inputs,
            sensitivity=self.metrics / "sensitivity.csv",
            classes=self.metrics / "classes.csv",
            confusion=self.metrics / "confusion.csv",
            reliability=self.metrics / "reliability.csv",
            robustness=self.metrics / "robustness.csv",
            subgroups=self.metrics / "subgroups.csv",
            curves=self.metrics / "curves",
            studies=self.metrics / "studies",
            sweeps=self.metrics / "sweeps",
            devices=self.metrics / "devices",
            answers=self.root / "answers",
            pruned_model=models / "pruned",
            quantized_model=models / "quantized",
            shipped=self.root / "shipped",
            page=page,
            paper=self.root / "report.pdf",
            tables=self.root / "tables",
            figures=self.root / "figures",
        )


METRICS = {
    "prepared": "prepare",
    "trained": "train_teacher",
    "distilled": "distill",
    "pruned": "prune",
    "quantized": "quantize",
    "evaluated": "evaluate",
    "exported": "export",
    "benchmarked": "benchmark",
    "converted": "convert",
}


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


Build = Callable[[World], Page]
