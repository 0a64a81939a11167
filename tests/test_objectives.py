"""Losses of logits against the papers' formulas, written out in float64 and without torch's own losses."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import params
from stages.core.objectives import building, logits
from stages.core.objectives.contract import Answer, Objective, Situation, Step

CLASSES = 5
TEMPERATURE, ALPHA = 3.0, 0.7

METHODS: dict[str, params.Anything] = {
    "cross_entropy": params.CrossEntropy(name="cross_entropy", smoothing=0.1),
    "hinton": params.Hinton(name="hinton", temperature=TEMPERATURE, alpha=ALPHA),
    "standardised": params.Standardised(name="standardised", temperature=TEMPERATURE, alpha=ALPHA),
    "logit_mse": params.LogitMSE(name="logit_mse", alpha=ALPHA),
    "function_matching": params.FunctionMatching(name="function_matching", temperature=TEMPERATURE),
    "dkd": params.DKD(name="dkd", temperature=TEMPERATURE, alpha=1.5, beta=4.0, warm_up_epochs=4),
    "dist": params.DIST(name="dist", temperature=TEMPERATURE, beta=2.0, gamma=0.5),
}


def softmax(values: Tensor) -> Tensor:
    return values.exp() / values.exp().sum(1, keepdim=True)


def divergence(told: Tensor, said: Tensor) -> Tensor:
    return (told * (told / said).log()).sum(1).mean()


def hard(said: Tensor, labels: Tensor) -> Tensor:
    return -softmax(said).log()[range(len(labels)), labels].mean()


def kd(said: Tensor, told: Tensor) -> Tensor:
    return TEMPERATURE**2 * divergence(softmax(told / TEMPERATURE), softmax(said / TEMPERATURE))


def scored(values: Tensor) -> Tensor:
    deviation = ((values - values.mean(1, keepdim=True)) ** 2).sum(1, keepdim=True) / (values.shape[1] - 1)
    return (values - values.mean(1, keepdim=True)) / deviation.sqrt()


def dkd(said: Tensor, told: Tensor, labels: Tensor, epoch: int) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        p, q = (softmax(values[row : row + 1] / TEMPERATURE)[0] for values in (told, said))
        others = [number for number in range(CLASSES) if number != label]
        pair = [torch.stack([one[label], one[others].sum()]) for one in (p, q)]
        among = [one[others] / one[others].sum() for one in (p, q)]
        target = (pair[0] * (pair[0] / pair[1]).log()).sum()
        rest = (among[0] * (among[0] / among[1]).log()).sum()
        total = total + 1.5 * target + 4.0 * rest
    return hard(said, labels) + min((epoch + 1) / 4, 1) * TEMPERATURE**2 * total / len(labels)


def pearson(first: Tensor, second: Tensor) -> Tensor:
    first, second = first - first.mean(), second - second.mean()
    return (first * second).sum() / (first.square().sum().sqrt() * second.square().sum().sqrt())


def dist(said: Tensor, told: Tensor, labels: Tensor) -> Tensor:
    p, q = softmax(told / TEMPERATURE), softmax(said / TEMPERATURE)
    within = sum(1 - pearson(q[row], p[row]) for row in range(len(p))) / len(p)
    across = sum(1 - pearson(q[:, column], p[:, column]) for column in range(CLASSES)) / CLASSES
    return hard(said, labels) + TEMPERATURE**2 * (2.0 * within + 0.5 * across)


FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda said, _, y: 0.9 * hard(said, y) + 0.1 * -softmax(said).log().mean(),
    "hinton": lambda said, told, y: ALPHA * kd(said, told) + (1 - ALPHA) * hard(said, y),
    "standardised": lambda said, told, y: ALPHA * kd(scored(said), scored(told)) + (1 - ALPHA) * hard(said, y),
    "logit_mse": lambda said, told, y: ALPHA * ((said - told) ** 2).mean() + (1 - ALPHA) * hard(said, y),
    "function_matching": lambda said, told, _: kd(said, told),
    "dkd": lambda said, told, y: dkd(said, told, y, epoch=1),
    "dist": dist,
}


def said_and_told(count: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(count, CLASSES, dtype=dtype, generator=generator) * 2 for _ in range(2)]
    return rows[0], rows[1], torch.arange(count) % CLASSES


@pytest.mark.parametrize("name", METHODS)
def test_the_formula_of_the_paper_and_its_gradient(name: str) -> None:
    said, told, labels = said_and_told()
    found, expected = said.clone().requires_grad_(), said.clone().requires_grad_()
    loss = logits.LOSSES[name](METHODS[name], found, told, labels, 1)
    formula = FORMULAS[name](expected, told, labels)
    torch.testing.assert_close(loss, formula, rtol=1e-6, atol=1e-8)
    loss.backward()
    formula.backward()
    assert found.grad is not None
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-7)


def test_every_loss_is_tried() -> None:
    assert set(METHODS) == set(FORMULAS) == set(logits.LOSSES)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    said, told, labels = said_and_told(4)
    loss = logits.LOSSES[name]
    assert torch.autograd.gradcheck(
        lambda given: loss(METHODS[name], given, told, labels, 1), said.clone().requires_grad_()
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_parts_of_dkd_recompose_to_classical_distillation(temperature: float) -> None:
    """KD = TCKD + (1 - p_target) NCKD, picture by picture (Zhao et al. 2022, equation 6)."""
    said, told, labels = said_and_told()
    for row in range(len(labels)):
        one = slice(row, row + 1)
        target, others = logits.dkd_parts(said[one], told[one], labels[one], temperature)
        left = 1 - softmax(told[one] / temperature)[0, labels[row]]
        whole = logits.softened(said[one], told[one], temperature)
        torch.testing.assert_close(target + left * others, whole)


def test_beta_is_modest_among_few_classes() -> None:
    assert [logits.dkd_beta(classes) for classes in (2, 6, 10, 40, 100, 1000)] == [1, 1.2, 2, 8, 8, 8]


def test_beta_auto_is_that_beta() -> None:
    said, told, labels = said_and_told()
    found = [
        logits.dkd(
            params.DKD(name="dkd", temperature=2.0, alpha=1.0, beta=beta, warm_up_epochs=0), said, told, labels, 0
        )
        for beta in ("auto", 1.0, 2.0)
    ]
    assert found[0] == found[1] != found[2]


def test_dkd_warms_up() -> None:
    said, told, labels = said_and_told()
    settings = METHODS["dkd"]
    alone = functional.cross_entropy(said, labels)
    apart = [(logits.dkd(settings, said, told, labels, epoch) - alone).item() for epoch in range(6)]  # pyright: ignore[reportArgumentType]
    assert [one / apart[-1] for one in apart] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_two_classes_are_enough() -> None:
    """Where nothing is left beside the target, DKD's second part is nothing."""
    target, others = logits.dkd_parts(torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 1, 0]), 2.0)
    assert others.item() == 0
    assert math.isfinite(target.item())


@pytest.mark.parametrize("name", ["hinton", "standardised", "logit_mse", "function_matching", "dkd", "dist"])
def test_a_student_that_knows_all_has_nothing_to_learn_from_its_teacher(name: str) -> None:
    told, _, labels = said_and_told()
    given = told.clone().requires_grad_()
    loss = logits.LOSSES[name](METHODS[name], given, told, labels, 9)
    alone = {"hinton": 0.3, "standardised": 0.3, "logit_mse": 0.3, "function_matching": 0.0}.get(name, 1.0)
    torch.testing.assert_close(loss, alone * functional.cross_entropy(told, labels))


def test_the_soft_gradient_hardly_changes_with_the_temperature() -> None:
    """That is what T^2 is for (Hinton et al. 2015, section 2.1): at high T it nears (v - z) / (N C)."""
    said, told, _ = said_and_told()
    said, told = (values - values.mean(1, keepdim=True) for values in (said, told))
    given = said.clone().requires_grad_()
    logits.softened(given, told, 1000.0).backward()
    torch.testing.assert_close(given.grad, (said - told) / (CLASSES * len(said)), rtol=1e-2, atol=1e-4)


# ---------------------------------------------------------------------------------- as training calls them


def objective(settings: params.Anything) -> Objective:
    network = nn.Identity()

    def nobody(_member: params.Member) -> nn.Module:
        raise AssertionError

    return building.build(settings, Situation(network, network, torch.zeros(2, 3, 8, 8), CLASSES, 10, nobody), seed=0)


def step(said: Tensor, told: Tensor | None, labels: Tensor, epoch: int = 1) -> Step:
    teacher = Answer(told) if told is not None else None
    return Step(torch.zeros(1), labels, torch.arange(len(said)), Answer(said), teacher, epoch)


@pytest.mark.parametrize("name", METHODS)
def test_maps_of_logits_are_rows_for_each_pixel(name: str) -> None:
    """Segmentation: N x classes x height x width costs as much as its pixels one by one."""
    said, told, labels = said_and_told(24)
    maps = [values.view(2, 3, 4, CLASSES).permute(0, 3, 1, 2) for values in (said, told)]
    found = objective(METHODS[name])(step(maps[0], maps[1], labels.view(2, 3, 4)))
    torch.testing.assert_close(found, objective(METHODS[name])(step(said, told, labels)))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dkd"])
def test_labels_may_be_probabilities(name: str) -> None:
    """A label that is certain is that label; a mixture of two labels costs the mixture of their losses."""
    said, told, labels = said_and_told(dtype=torch.float32)
    loss = objective(METHODS[name])
    certain = functional.one_hot(labels, CLASSES).float()
    one, other = (loss(step(said, told, given)) for given in (labels, labels.roll(1)))
    torch.testing.assert_close(loss(step(said, told, certain)), one)
    torch.testing.assert_close(
        loss(step(said, told, 0.3 * certain + 0.7 * certain.roll(1, 0))), 0.3 * one + 0.7 * other
    )


def test_a_loss_that_listens_says_when_there_is_no_teacher() -> None:
    said, _, labels = said_and_told()
    assert objective(METHODS["cross_entropy"])(step(said, None, labels)).isfinite()
    with pytest.raises(LookupError, match="there is none"):
        objective(METHODS["hinton"])(step(said, None, labels))
