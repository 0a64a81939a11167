"""The loop: resumed runs equal unbroken ones, val alone chooses, and nothing that is not a number passes."""

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import batches, evaluation, machine, params
from stages.core.datasets import storage
from stages.core.networks import families
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import loop, objectives, optimizers
from stages.core.training.loop import Lesson

SMALL = params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1)
BATCHES = 5  # 72 pictures by 16
PLAIN = params.CrossEntropy(name="cross_entropy", smoothing=0.0)


@pytest.fixture
def lesson(settings: params.Params, prepared: Path) -> Iterator[Lesson]:
    here = machine.choose(settings.compute, 0)
    train, val = (batches.on_device(storage.load(prepared / name), here) for name in ("train", "val"))
    objective, training = objectives.build(PLAIN, None), settings.train_teacher.training
    yield Lesson(train, val, objective, training, settings.augment, here, seed=0)
    torch.use_deterministic_algorithms(mode=False)


def change(lesson: Lesson, **training: object) -> Lesson:
    return replace(lesson, settings=lesson.settings.model_copy(update=training))


def new(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return families.build(SMALL, 3)


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class Killed(BaseException):
    """What no handler of the loop may catch."""


@pytest.mark.parametrize("steps_before_death", [1, 5, 7, 12])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_ends_as_an_unbroken_one(
    lesson: Lesson, tmp_path: Path, steps_before_death: int, optimizer: str
) -> None:
    if optimizer == "sgd":
        sgd = params.SGD(name="sgd", rate=0.05, momentum=0.9, weight_decay=1e-4)
        lesson = change(lesson, optimizer=sgd)
    unbroken = new()
    history = loop.fit(unbroken, lesson, Run(tmp_path / "unbroken"), "x")
    deaths = iter([False] * steps_before_death + [True])
    plain = lesson.objective

    def deadly(*arguments: Tensor) -> Tensor:
        if next(deaths):
            raise Killed
        return plain(*arguments)

    with pytest.raises(Killed):
        loop.fit(new(), replace(lesson, objective=deadly), Run(tmp_path / "broken"), "x")
    torch.manual_seed(12345)
    resumed = new(seed=0 if steps_before_death < BATCHES else 99)  # an epoch must end before anything is kept
    assert loop.fit(resumed, lesson, Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)


def test_a_killed_run_that_mixes_augments_and_streams_leaves_no_thread_and_ends_alike(
    lesson: Lesson, tmp_path: Path
) -> None:
    augment = lesson.augment.model_copy(update={"mirror": True, "rotate": 10.0, "contrast": 0.2, "erase": 0.5})
    resident = replace(change(lesson, mix=params.Mixed(name="cutmix", alpha=1.0)), augment=augment)
    streamed = replace(resident, train=replace(lesson.train, streamed=True), val=replace(lesson.val, streamed=True))
    unbroken, resumed, calls = new(), new(), iter(range(100))
    history = loop.fit(unbroken, resident, Run(tmp_path / "unbroken"), "x")

    def deadly(*arguments: Tensor) -> Tensor:
        if next(calls) == 7:
            raise Killed
        return lesson.objective(*arguments)

    with pytest.raises(Killed) as death:
        loop.fit(new(), replace(streamed, objective=deadly), Run(tmp_path / "broken"), "x")
    assert death.tb  # holds on to whatever the loop left open
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightvision")]
    assert loop.fit(resumed, streamed, Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)


def test_two_runs_of_one_seed_are_equal_and_of_two_are_not(lesson: Lesson, tmp_path: Path) -> None:
    networks = [new(), new(), new()]
    lessons = [lesson, lesson, replace(lesson, seed=1)]
    for number, (network, taught) in enumerate(zip(networks, lessons, strict=True)):
        loop.fit(network, taught, Run(tmp_path / str(number)), "x")
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


def test_it_learns(lesson: Lesson, tmp_path: Path) -> None:
    history = loop.fit(new(), change(lesson, epochs=20, patience=20), Run(tmp_path), "x")
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert max(row["val_accuracy"] for row in history) > 0.9


def test_the_network_ends_with_its_best_epoch(lesson: Lesson, tmp_path: Path) -> None:
    network = new()
    history = loop.fit(network, change(lesson, epochs=4), Run(tmp_path), "x")
    best = history[loop.best_epoch(history) - 1]
    answers = evaluation.logits(network, lesson.val)
    assert evaluation.accuracy(answers, lesson.val.labels) == best["val_accuracy"]
    assert functional.cross_entropy(answers, lesson.val.labels).item() == best["val_loss"]


def row(accuracy: float, loss: float) -> dict[str, float]:
    return {"val_accuracy": accuracy, "val_loss": loss}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([row(0.5, 1), row(0.9, 1), row(0.7, 0.1)], 2),
        ([row(0.9, 1), row(0.9, 0.5), row(0.9, 0.7)], 2),
        ([row(0.9, 1), row(0.9, 1)], 1),
    ],
)
def test_best_is_by_accuracy_then_loss_then_the_first(history: loop.History, expected: int) -> None:
    assert loop.best_epoch(history) == expected


def test_patience_ends_a_run_that_learns_nothing(lesson: Lesson, tmp_path: Path) -> None:
    still = params.SGD(name="sgd", rate=1e-12, momentum=0.0, weight_decay=0.0)
    lesson = change(lesson, epochs=20, patience=2, optimizer=still)
    for_ever_worse = iter(range(100))
    network = new()
    network.register_forward_hook(
        lambda module, _inputs, output: output if module.training else output * 0 + next(for_ever_worse)
    )
    history = loop.fit(network, lesson, Run(tmp_path), "x")
    assert len(history) == 3
    assert loop.summary(history, 20)["stopped_early"] is True


def test_a_loss_that_is_not_finite_stops_at_its_batch(lesson: Lesson, tmp_path: Path) -> None:
    calls = iter(range(100))
    plain = lesson.objective

    def planted(*arguments: Tensor) -> Tensor:
        return plain(*arguments) * (math.inf if next(calls) == 6 else 1)

    with pytest.raises(Refusal, match=r"not finite from batch 2 of epoch 2 \(rate .*lower training\.optimizer\.rate"):
        loop.fit(new(), replace(lesson, objective=planted), Run(tmp_path), "x")


def test_evaluation_moves_nothing(lesson: Lesson) -> None:
    network = new().train()
    network.conv1.eval()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    evaluation.logits(network, lesson.val)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert modes == [module.training for module in network.modules()]


@pytest.mark.parametrize(("count", "expected"), [(8, 2), (9, 2), (10, 3)])
def test_a_last_batch_of_one_is_left_out(count: int, expected: int) -> None:
    assert batches.batches_per_epoch(count, 4) == expected


def test_norms_and_biases_do_not_decay() -> None:
    network = families.build(SMALL, 3)
    decaying, still = optimizers.build(params.AdamW(name="adamw", rate=0.1, weight_decay=0.1), network).param_groups
    assert {weight.ndim for weight in decaying["params"]} == {2, 4}
    assert still["weight_decay"] == 0
    assert {weight.ndim for weight in still["params"]} == {1}
    assert len(decaying["params"]) + len(still["params"]) == len(list(network.parameters()))


def test_the_rate_warms_up_and_falls_as_half_a_cosine() -> None:
    shares = [optimizers.rate_share(step, 110, 10) for step in range(110)]
    assert shares[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert shares[60] == pytest.approx(0.5)
    assert shares[10] == 1
    assert shares[-1] < 0.001


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
    guide = families.build(SMALL, 3)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    objective = objectives.build(params.Hinton(name="hinton", temperature=4.0, alpha=0.9), guide)
    loop.fit(new(), replace(lesson, objective=objective), Run(tmp_path), "x")
    assert all(torch.equal(before[name], value) for name, value in guide.state_dict().items())
    assert all(parameter.grad is None for parameter in guide.parameters())


def test_hinton_needs_a_teacher() -> None:
    with pytest.raises(Refusal, match="needs a teacher"):
        objectives.build(params.Hinton(name="hinton", temperature=4.0, alpha=0.9), None)


def test_bfloat16_computes_in_bfloat16(settings: params.Params) -> None:
    here = machine.choose(settings.compute.model_copy(update={"precision": "bfloat16"}), 0)
    with here.autocast():
        assert nn.Linear(3, 3)(torch.ones(1, 3)).dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"compute\.device: no cuda on this machine; here: auto, cpu"):
        machine.choose(settings.compute.model_copy(update={"device": "cuda"}), 0)
