"""What one network's answers are worth. All is computed from the very numbers that are kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_stat_scores

from stages.core import params
from stages.core.judging.counted import share

SILENT: dict[str, Any] = {"zero_division": 0}  # a class that is never answered has precision 0
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))  # torchmetrics gives a confidence of 1 a bin of its own
LEAST = float(np.finfo(np.float32).tiny)  # probability, of which a logarithm is still a number


def judge(chances: np.ndarray, labels: np.ndarray, classes: Sequence[str], settings: params.Evaluate) -> dict[str, Any]:
    choice, count = chances.argmax(axis=1), len(labels)
    exact = chances.astype(np.float64)
    macro: Any = precision_recall_fscore_support(labels, choice, labels=np.unique(labels), average="macro", **SILENT)
    within = top(settings, classes)
    return {
        **share("accuracy", int((choice == labels).sum()), count, settings.confidence),
        **share("top_accuracy", among_the_top(exact, labels, within), count, settings.confidence),
        "loss": float(-np.log(exact[np.arange(count), labels].clip(min=LEAST)).mean()),
        "macro_f1": float(macro[2]),
        "calibration_error": calibration_error(chances, labels, settings.calibration_bins),
        "worst_class": worst_class(choice, labels, classes, settings.confidence),
    }


def top(settings: params.Evaluate, classes: Sequence[str]) -> int:
    """Among all classes the right one always is."""
    return min(settings.top, len(classes) - 1)


def among_the_top(chances: np.ndarray, labels: np.ndarray, within: int) -> int:
    found = multiclass_stat_scores(
        torch.from_numpy(chances), torch.from_numpy(labels), chances.shape[1], average="micro", top_k=within
    )
    return int(found[0])


def calibration_error(chances: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Expected gap between confidence and accuracy over equally wide bins (Guo et al. 2017)."""
    told = torch.from_numpy(chances.clip(max=BELOW_ONE))
    return float(multiclass_calibration_error(told, torch.from_numpy(labels), chances.shape[1], n_bins=bins))


def reliability(chances: np.ndarray, labels: np.ndarray, settings: params.Evaluate) -> list[dict[str, float]]:
    """How often a network is right that is this sure; a row for each bin that has pictures."""
    sure, right = chances.max(axis=1).clip(max=BELOW_ONE), chances.argmax(axis=1) == labels
    bins = settings.calibration_bins
    places = torch.bucketize(torch.from_numpy(sure), torch.linspace(0, 1, bins + 1), right=True).numpy()
    rows: list[dict[str, float]] = []
    for number in np.unique(places).tolist():
        here = places == number
        rows.append(
            {
                "bin": number,
                "from": (number - 1) / bins,
                "to": number / bins,
                "pictures": int(here.sum()),
                "confidence": float(sure[here].mean(dtype=np.float64)),
                **share("accuracy", int(right[here].sum()), int(here.sum()), settings.confidence),
            }
        )
    return rows


def by_class(choice: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Of classes that have pictures: of others there is nothing to say."""
    present = np.unique(labels)
    found: Any = precision_recall_fscore_support(labels, choice, labels=present, **SILENT)
    return [
        {"class": classes[label], "precision": precision, "recall": recall, "f1": f1, "pictures": pictures}
        for label, precision, recall, f1, pictures in zip(present.tolist(), *found, strict=True)
    ]


def worst_class(choice: np.ndarray, labels: np.ndarray, classes: Sequence[str], confidence: float) -> dict[str, Any]:
    """The one found least often."""
    right = {int(label): choice[labels == label] == label for label in np.unique(labels)}
    worst = min(right, key=lambda label: float(right[label].mean()))
    found, count = int(right[worst].sum()), len(right[worst])
    return {"name": classes[worst], **share("recall", found, count, confidence), "pictures": count}
