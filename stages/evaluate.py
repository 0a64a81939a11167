"""What every network answers on pictures that no choice has ever seen."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import log_loss, precision_recall_fscore_support
from torch import Tensor

from stages.core import batches, evaluation, loading, machine, params, statistics, tables
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.lineage import PARENTS
from stages.core.machine import Machine
from stages.core.networks import artifact
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run

SILENT: dict[str, Any] = {"zero_division": 0}  # a class that is never answered has precision 0


def main(
    run: Run,
    evaluate: params.Evaluate,
    compute: params.Compute,
    seed: int,
    test: Input,
    teacher: Input,
    student: Input,
    control: Input,
    pruned: Input,
    quantized: Input,
    metrics: Output,
    classes: Output,
    confusion: Output,
    answers: Output,
) -> None:
    here = machine.choose(compute, seed)
    judging = storage.load(test)
    folders = {"teacher": teacher, "student": student, "control": control, "pruned": pruned, "quantized": quantized}
    if artifact.absent(control):
        del folders["control"]
    chances = {name: probabilities(folder, judging, here) for name, folder in folders.items()}
    choices = {name: chance.argmax(axis=1) for name, chance in chances.items()}
    results = {name: judge(chance, judging.labels, evaluate) for name, chance in chances.items()}
    for name, parent in PARENTS.items():
        if name in folders:
            results[name][f"agreement_with_{parent}"] = float((choices[name] == choices[parent]).mean())
    by_class = [row for name, choice in choices.items() for row in per_class(name, choice, judging)]
    tables.write(classes, list(by_class[0]), by_class)
    names = judging.facts.classes
    pairs = zip(judging.labels, choices["quantized"], strict=True)
    rows = [{"actual": names[label], "predicted": names[choice]} for label, choice in pairs]
    tables.write(confusion, ["actual", "predicted"], rows)
    keep(answers, chances, judging, evaluate.examples)
    run.metrics(metrics, {"pictures": len(judging)} | results)


def probabilities(folder: Path, split: Split, here: Machine) -> np.ndarray:
    model = loading.load(folder)
    if model.card.facts.classes != split.facts.classes:
        raise Refusal(f"{folder} knows other classes than the test pictures: `dvc repro` rebuilds it")
    answers: Tensor = evaluation.logits(here.place(model.network), batches.on_device(split, here))
    return answers.cpu().double().softmax(dim=1).numpy()


def judge(chance: np.ndarray, labels: np.ndarray, settings: params.Evaluate) -> dict[str, float]:
    right = chance.argmax(axis=1) == labels
    low, high = statistics.wilson(int(right.sum()), len(right), settings.confidence)
    scores: Any = precision_recall_fscore_support(labels, chance.argmax(axis=1), average="macro", **SILENT)
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": float(log_loss(labels, chance, labels=np.arange(chance.shape[1]))),
        "macro_f1": float(scores[2]),
        "calibration_error": statistics.calibration_error(chance.max(axis=1), right, settings.calibration_bins),
    }


def per_class(name: str, choice: np.ndarray, split: Split) -> list[dict[str, object]]:
    numbers = np.arange(len(split.facts.classes))
    scores: Any = precision_recall_fscore_support(split.labels, choice, labels=numbers, **SILENT)
    return [
        {"network": name, "class": label, "precision": precision, "recall": recall, "f1": f1, "pictures": pictures}
        for label, precision, recall, f1, pictures in zip(split.facts.classes, *scores, strict=True)
    ]


def keep(folder: Path, chances: dict[str, np.ndarray], split: Split, examples: int) -> None:
    """Every answer, so that any two networks can be compared later, and the pictures that the report shows."""
    folder.mkdir()
    names = np.array(split.facts.classes)
    columns: dict[str, np.ndarray] = {"picture": np.arange(len(split)), "label": names[split.labels]}
    for name, chance in chances.items():
        columns[name] = names[chance.argmax(axis=1)]
        columns[f"{name}_confidence"] = chance.max(axis=1).round(6)
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    tables.write(folder / "answers.csv", list(columns), rows)
    wrong = columns["quantized"] != columns["label"]
    order = np.lexsort((columns["quantized_confidence"], ~wrong))
    for picture in order[:examples]:
        Image.fromarray(split.images[picture]).save(folder / f"{picture:06}.png")
