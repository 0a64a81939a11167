"""What every network answers on pictures that no choice has ever seen."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import log_loss, precision_recall_fscore_support
from torch import Tensor

from stages.core import batches, evaluation, loading, machine, params, statistics
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.machine import Machine
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run

PARENTS = {"student": "teacher", "control": "teacher", "pruned": "student", "quantized": "pruned"}


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
    chances = {name: probabilities(folder, judging, here) for name, folder in folders.items()}
    choices = {name: chance.argmax(axis=1) for name, chance in chances.items()}
    results = {name: judge(chance, judging.labels, evaluate) for name, chance in chances.items()}
    for name, parent in PARENTS.items():
        results[name][f"agreement_with_{parent}"] = float((choices[name] == choices[parent]).mean())
    by_class = pd.concat([per_class(name, choice, judging) for name, choice in choices.items()])
    by_class.to_csv(classes, index=False)
    names = np.array(judging.facts.classes)
    pd.DataFrame({"actual": names[judging.labels], "predicted": names[choices["quantized"]]}).to_csv(
        confusion, index=False
    )
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
    scores = precision_recall_fscore_support(labels, chance.argmax(axis=1), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": float(log_loss(labels, chance, labels=np.arange(chance.shape[1]))),
        "macro_f1": float(scores[2]),
        "calibration_error": statistics.calibration_error(chance.max(axis=1), right, settings.calibration_bins),
    }


def per_class(name: str, choice: np.ndarray, split: Split) -> pd.DataFrame:
    numbers = np.arange(len(split.facts.classes))
    scores = precision_recall_fscore_support(split.labels, choice, labels=numbers, zero_division=0)  # pyright: ignore[reportArgumentType]
    columns = dict(zip(("precision", "recall", "f1", "pictures"), scores, strict=True))
    return pd.DataFrame({"network": name, "class": split.facts.classes, **columns})


def keep(folder: Path, chances: dict[str, np.ndarray], split: Split, examples: int) -> None:
    """Every answer, so that any two networks can be compared later, and the pictures that the report shows."""
    folder.mkdir()
    names = np.array(split.facts.classes)
    table = pd.DataFrame({"picture": np.arange(len(split)), "label": names[split.labels]})
    for name, chance in chances.items():
        table[name] = names[chance.argmax(axis=1)]
        table[f"{name}_confidence"] = chance.max(axis=1).round(6)
    table.to_csv(folder / "answers.csv", index=False)
    wrong = (table["quantized"] != table["label"]).to_numpy()
    order = np.lexsort((table["quantized_confidence"].to_numpy(), ~wrong))
    for picture in order[:examples]:
        Image.fromarray(split.images[picture]).save(folder / f"{picture:06}.png")
