"""What training minimises, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.networks import families
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import loop, objectives
from stages.core.training.loop import Lesson
from tests.lessons import SMALL, new


def test_hinton_by_hand() -> None:
    """(1 - a) CE + a T^2 sum p log(p / q), in float64 and without torch's own loss."""
    torch.manual_seed(0)
    answer, advice = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    labels, temperature, alpha = torch.tensor([0, 1, 2, 3, 0]), 3.0, 0.7
    teacher = torch.exp(advice / temperature) / torch.exp(advice / temperature).sum(1, keepdim=True)
    student = torch.exp(answer / temperature) / torch.exp(answer / temperature).sum(1, keepdim=True)
    soft = (teacher * torch.log(teacher / student)).sum(1).mean() * temperature**2
    hard = -torch.log(torch.exp(answer) / torch.exp(answer).sum(1, keepdim=True))[range(5), labels].mean()
    found = hinton(temperature, alpha, advice)(answer, torch.zeros(5), labels)
    assert found.item() == pytest.approx((alpha * soft + (1 - alpha) * hard).item(), abs=1e-6)


def hinton(temperature: float, alpha: float, advice: Tensor) -> objectives.Objective:
    class Guide(nn.Module):
        def forward(self, _images: Tensor) -> Tensor:
            return advice

    return objectives.build(params.Hinton(name="hinton", temperature=temperature, alpha=alpha), Guide())


def test_a_student_that_knows_all_has_nothing_to_learn_from_its_teacher() -> None:
    advice = torch.randn(5, 4)
    assert hinton(4.0, 1.0, advice)(advice, torch.zeros(5), torch.zeros(5).long()).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_learns_nothing(lesson: Lesson, tmp_path: Path) -> None:
    guide = families.build(SMALL, 3, 8)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    objective = objectives.build(params.Hinton(name="hinton", temperature=4.0, alpha=0.9), guide)
    loop.fit(new(), replace(lesson, objective=objective), Run(tmp_path), "x")
    assert all(torch.equal(before[name], value) for name, value in guide.state_dict().items())
    assert all(parameter.grad is None for parameter in guide.parameters())


def test_hinton_needs_a_teacher() -> None:
    with pytest.raises(Refusal, match="needs a teacher"):
        objectives.build(params.Hinton(name="hinton", temperature=4.0, alpha=0.9), None)
