"""What every network answers on pictures that no choice has ever seen."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from stages.core import answers as answering
from stages.core import batches, evaluation, loading, machine, params, tables
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.judging import looking, pairs, robustness, scores, showing, subgroups
from stages.core.machine import Machine
from stages.core.networks import artifact
from stages.core.running import progress
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run

SHARE = ("accuracy", "accuracy_low", "accuracy_high")
CLASSES = ("class", "precision", "recall", "f1", "pictures")
SURE = ("bin", "from", "to", "pictures", "confidence", *SHARE)
SPOILT = ("kind", "severity", "amount", "pictures", *SHARE)
GROUPS = ("column", "group", "pictures", *SHARE)
LOOKING = ("teacher", "student")
AT_ONCE = 4096  # pictures whose answers are held in float64


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
    sure: Output,
    spoilt: Output,
    groups: Output,
    answers: Output,
) -> None:
    here = machine.choose(compute, seed)
    judging = storage.load(test)
    labels, known = judging.labels, judging.facts.classes
    folders = {"teacher": teacher, "student": student, "control": control, "pruned": pruned, "quantized": quantized}
    if artifact.absent(control):
        del folders["control"]
    networks = {name: load(folder, judging, here) for name, folder in folders.items()}
    pictures = batches.on_device(judging, here)
    chances = {name: answered(folders[name], network, pictures) for name, network in networks.items()}
    choices = {name: chance.argmax(axis=1) for name, chance in chances.items()}
    right = {name: choice == labels for name, choice in choices.items()}

    changed = list(robustness.rows(networks, right, pictures, evaluate, seed))
    results = {name: numbers(name, chances, judging, changed, evaluate) for name in networks}

    groups_told = judging.roll().groups
    table(classes, CLASSES, {name: scores.by_class(choice, labels, known) for name, choice in choices.items()})
    table(sure, SURE, {name: scores.reliability(chance, labels, evaluate) for name, chance in chances.items()})
    table(spoilt, SPOILT, {name: [row for row in changed if row["network"] == name] for name in networks})
    table(groups, GROUPS, {name: subgroups.rows(one, groups_told, evaluate.confidence) for name, one in right.items()})
    both = zip(labels, choices["quantized"], strict=True)
    rows = [{"actual": known[label], "predicted": known[choice]} for label, choice in both]
    tables.write(confusion, ["actual", "predicted"], rows)

    answering.write(answers, judging, chances)
    for picture in showing.examples(chances["quantized"], labels, evaluate.examples):
        Image.fromarray(judging.images[picture]).save(answers / f"{picture:06}.png")
    looked = {name: networks[name] for name in LOOKING}
    looking.write(answers / "attention", looked, chances, judging, pictures, evaluate.attention)

    facts = {
        "pictures": len(judging),
        "test": answering.identity(judging),
        "top": scores.top(evaluate, known),
        "confidence": evaluate.confidence,
        "unseen": unseen(judging),
    }
    run.metrics(metrics, facts | results)


def load(folder: Path, split: Split, here: Machine) -> nn.Module:
    model = loading.load(folder)
    if model.card.facts.classes != split.facts.classes:
        raise Refusal(f"{folder} knows other classes than the test pictures: `dvc repro` rebuilds it")
    return here.place(model.network)


def answered(folder: Path, network: nn.Module, pictures: Pictures) -> np.ndarray:
    found = probabilities(network, pictures)
    if not np.isfinite(found).all():
        raise Refusal(f"{folder} answers what is no number to a test picture: `dvc repro` rebuilds it")
    return found


def probabilities(network: nn.Module, pictures: Pictures) -> np.ndarray:
    """As they are kept, and as all else is computed from."""
    answers = evaluation.logits(network, pictures)
    return torch.cat([some.cpu().double().softmax(dim=1).float() for some in answers.split(AT_ONCE)]).numpy()


def numbers(
    name: str,
    chances: Mapping[str, np.ndarray],
    split: Split,
    changed: Sequence[Mapping[str, Any]],
    settings: params.Evaluate,
) -> dict[str, Any]:
    labels, classes = split.labels, split.facts.classes
    choices = {other: chance.argmax(axis=1) for other, chance in chances.items()}
    left = robustness.means(changed, name)
    return {
        **scores.judge(chances[name], labels, classes, settings),
        "against": pairs.against(name, choices, labels, classes, settings.confidence),
        "robustness": left,
        "robustness_mean": fmean(left.values()) if left else None,
    }


def unseen(split: Split) -> list[str]:
    """Classes of which nothing can be said."""
    found = [name for number, name in enumerate(split.facts.classes) if number not in split.labels]
    if found:
        progress.note(f"no test pictures of {', '.join(found)}: nothing is said of these classes")
    return found


def table(path: Path, columns: Sequence[str], found: Mapping[str, Iterable[Mapping[str, object]]]) -> None:
    rows = ({"network": name} | dict(row) for name, rows in found.items() for row in rows)
    tables.write(path, ["network", *columns], rows)
