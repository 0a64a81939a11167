"""Losses that look at logits. Contract: settings, answers, advice, labels and the epoch give a number.

Answers and advice are rows of logits in float32, one for each picture, or for each pixel where answers are maps: then
a mean is one over pixels. Labels are int64, or rows of probabilities.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stages.core import params
from stages.core.objectives.contract import Objective, Step

LEAST, MOST = 1.0, 8.0  # beta of DKD where it is `auto`
CLASSES_PER_BETA = 5
TINY = 1e-7


def cross_entropy(
    settings: params.CrossEntropy, answers: Tensor, _advice: Tensor, labels: Tensor, _epoch: int
) -> Tensor:
    return functional.cross_entropy(answers, labels, label_smoothing=settings.smoothing)


def hinton(settings: params.Hinton, answers: Tensor, advice: Tensor, labels: Tensor, _epoch: int) -> Tensor:
    """Hinton, Vinyals, Dean 2015."""
    soft = softened(answers, advice, settings.temperature)
    return settings.alpha * soft + (1 - settings.alpha) * functional.cross_entropy(answers, labels)


def standardised(settings: params.Standardised, answers: Tensor, advice: Tensor, labels: Tensor, _epoch: int) -> Tensor:
    """Sun et al. 2024."""
    soft = softened(_standard(answers), _standard(advice), settings.temperature)
    return settings.alpha * soft + (1 - settings.alpha) * functional.cross_entropy(answers, labels)


def logit_mse(settings: params.LogitMSE, answers: Tensor, advice: Tensor, labels: Tensor, _epoch: int) -> Tensor:
    """Ba and Caruana 2014."""
    squared = functional.mse_loss(answers, advice)
    return settings.alpha * squared + (1 - settings.alpha) * functional.cross_entropy(answers, labels)


def function_matching(
    settings: params.FunctionMatching, answers: Tensor, advice: Tensor, _labels: Tensor, _epoch: int
) -> Tensor:
    """Beyer et al. 2022, a patient and consistent teacher: no label is looked at."""
    return softened(answers, advice, settings.temperature)


def dkd(settings: params.DKD, answers: Tensor, advice: Tensor, labels: Tensor, epoch: int) -> Tensor:
    """Zhao et al. 2022."""
    target, others = dkd_parts(answers, advice, labels, settings.temperature)
    beta = dkd_beta(answers.shape[1]) if settings.beta == "auto" else settings.beta
    warmth = min(1.0, (epoch + 1) / settings.warm_up_epochs) if settings.warm_up_epochs else 1.0
    return functional.cross_entropy(answers, labels) + warmth * (settings.alpha * target + beta * others)


def dist(settings: params.DIST, answers: Tensor, advice: Tensor, labels: Tensor, _epoch: int) -> Tensor:
    """Huang et al. 2022: relations within a picture, and within a class over the batch."""
    said, told = ((logits / settings.temperature).softmax(dim=1) for logits in (answers, advice))
    rows, columns = 1 - correlation(said, told).mean(), 1 - correlation(said.T, told.T).mean()
    apart = settings.beta * rows + settings.gamma * columns
    return functional.cross_entropy(answers, labels) + settings.temperature**2 * apart


def softened(answers: Tensor, advice: Tensor, temperature: float) -> Tensor:
    """T^2 KL(advice || answers): T^2 keeps the gradients at the size of those of hard labels."""
    said, told = ((logits / temperature).log_softmax(dim=1) for logits in (answers, advice))
    return functional.kl_div(said, told, reduction="batchmean", log_target=True) * temperature**2


def dkd_parts(answers: Tensor, advice: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T^2 KL of target against all others, and T^2 KL among the others: KD = target + (1 - p_target) others."""
    own = labels[:, None]
    places = torch.arange(answers.shape[1] - 1, device=labels.device)
    rest = places + (places >= own)
    pairs, others = [], []
    for logits in (answers, advice):
        chances = (logits / temperature).log_softmax(dim=1)
        left = chances.gather(1, rest)
        pairs.append(torch.cat([chances.gather(1, own), left.logsumexp(dim=1, keepdim=True)], dim=1))
        others.append(left.log_softmax(dim=1))
    target, among = (
        functional.kl_div(said, told, reduction="batchmean", log_target=True) for said, told in (pairs, others)
    )
    return target * temperature**2, among * temperature**2


def dkd_beta(classes: int) -> float:
    """Ours: among few classes little is left beside the target, and the paper's 8 drowns the labels."""
    return min(MOST, max(LEAST, classes / CLASSES_PER_BETA))


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, of each row."""
    first, second = (values - values.mean(dim=1, keepdim=True) for values in (first, second))
    return functional.cosine_similarity(first, second, dim=1)


def _standard(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + TINY)


LOSSES: Mapping[str, Callable[[Any, Tensor, Tensor, Tensor, int], Tensor]] = {
    "cross_entropy": cross_entropy,
    "hinton": hinton,
    "standardised": standardised,
    "logit_mse": logit_mse,
    "function_matching": function_matching,
    "dkd": dkd,
    "dist": dist,
}


class OfLogits(Objective):
    """One of these losses; without a teacher, answers stand in for the advice that nobody reads."""

    def __init__(self, settings: params.Anything) -> None:
        super().__init__()
        self._settings, self._loss = settings, LOSSES[settings.name]

    def forward(self, step: Step) -> Tensor:
        answers, labels = rows(step.student.logits), rows_of_labels(step.labels)
        advice = answers if isinstance(self._settings, params.CrossEntropy) else rows(step.advice.logits)
        return self._loss(self._settings, answers, advice, labels, step.epoch)


def rows(logits: Tensor) -> Tensor:
    """N x classes as it is; N x classes x height x width as a row for each pixel."""
    return logits.movedim(1, -1).flatten(0, -2).float()


def rows_of_labels(labels: Tensor) -> Tensor:
    """For the rows of logits: a number for each, or probabilities."""
    return rows(labels) if labels.is_floating_point() else labels.flatten()
