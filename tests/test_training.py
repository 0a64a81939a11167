"""The loop: val alone chooses, what is kept is what was judged, and two runs of a seed are one."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import batches, evaluation, params, weights
from stages.core.networks import families
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import checkpoint, loop
from stages.core.training.energy import Meter
from stages.core.training.loop import Lesson
from tests.lessons import SMALL, Asked, change, equal, new


def test_two_runs_of_one_seed_are_equal_and_of_two_are_not(lesson: Lesson, tmp_path: Path) -> None:
    networks = [new(), new(), new()]
    lessons = [lesson, lesson, replace(lesson, seed=1)]
    for number, (network, taught) in enumerate(zip(networks, lessons, strict=True)):
        loop.fit(network, taught, Run(tmp_path / str(number)), "x")
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


def test_any_seed_will_do(lesson: Lesson, tmp_path: Path) -> None:
    loop.fit(new(), replace(change(lesson, epochs=1), seed=2**62), Run(tmp_path), "x")


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


def test_parts_of_a_batch_make_the_step_of_the_whole(lesson: Lesson, tmp_path: Path) -> None:
    """With norms that look at one picture alone; in float64, where only a mistake could make a difference."""
    lesson = change(lesson, epochs=1, batch_size=15, clip_gradient=None)
    ends: list[Tensor] = []
    for parts in (1, 4):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
        network(torch.zeros(1, 3, 8, 8))
        history = loop.fit(network, change(lesson, accumulate=parts), Run(tmp_path / str(parts)), "x")
        ends.append(torch.cat([weight.detach().flatten() for weight in network.parameters()]))
        ends.append(torch.tensor(history[0]["train_loss"]))
    assert torch.allclose(ends[0], ends[2], atol=1e-5)
    assert torch.allclose(ends[1], ends[3], atol=1e-6)


def test_a_batch_too_small_for_its_parts_is_refused(lesson: Lesson, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="batch_size 16 in 9 parts for 1 processes leaves less than 2"):
        loop.fit(new(), change(lesson, accumulate=9), Run(tmp_path), "x")


def test_what_is_frozen_does_not_move(lesson: Lesson, tmp_path: Path) -> None:
    """Neither its weights nor its statistics."""
    network = new()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights.freeze(network)
    loop.fit(network, lesson, Run(tmp_path), "x")
    moved = {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"head.4.weight", "head.4.bias"}


def test_averaged_weights_are_what_is_judged_and_kept(lesson: Lesson, tmp_path: Path) -> None:
    """By hand: after each step a share of the way, growing to 1 - decay."""
    lesson = change(lesson, average=0.75, epochs=1)
    network, plain = new(), new()
    steps: list[dict[str, Tensor]] = []

    def note(*arguments: Tensor) -> Tensor:
        steps.append({name: value.clone() for name, value in plain.state_dict().items()})
        return lesson.objective(*arguments)

    loop.fit(plain, replace(change(lesson, average=None), objective=Asked(note)), Run(tmp_path / "plain"), "x")
    loop.fit(network, lesson, Run(tmp_path / "averaged"), "x")
    after = [*steps[1:], plain.state_dict()]
    expected = steps[0]["conv1.weight"]
    for count, state in enumerate(after, start=1):
        kept = min(0.75, count / (10 + count))
        expected = kept * expected + (1 - kept) * state["conv1.weight"]
    assert torch.allclose(network.state_dict()["conv1.weight"], expected, atol=1e-6)
    assert not torch.allclose(expected, after[-1]["conv1.weight"], atol=1e-4)


def test_an_average_does_not_disturb_what_it_follows(lesson: Lesson, tmp_path: Path) -> None:
    """Whatever is judged, training goes on from where it was."""
    ends: list[dict[str, Tensor]] = []
    for decay in (None, 0.75):
        run = Run(tmp_path / str(decay))
        loop.fit(new(), change(lesson, average=decay), run, "x")
        state = checkpoint.load(run.scratch / "x.checkpoint")
        assert state is not None
        ends.append(state.network)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_network_that_asks_for_versions_of_its_modules_learns_and_goes_on(lesson: Lesson, tmp_path: Path) -> None:
    """torchvision's MNASNet takes no weights that do not tell them."""
    network = params.Torchvision(name="torchvision", model="mnasnet0_5", options={})
    first, again = (families.build(network, 3, 8) for _ in range(2))
    for one in (first, again):
        loop.fit(one, change(lesson, average=0.75, epochs=1), Run(tmp_path), "x")
    assert equal(first, again)


@pytest.mark.slow
def test_compiled_steps_learn_the_same(lesson: Lesson, tmp_path: Path) -> None:
    """Without Dropout, for which compiled code has random numbers of its own."""
    lesson = change(lesson, epochs=1)
    torch.manual_seed(0)
    first = families.build(SMALL.model_copy(update={"hidden_layers": 0}), 3, 8)
    networks = first, copy.deepcopy(first)
    histories = [
        loop.fit(network, replace(lesson, machine=replace(lesson.machine, compile=how)), Run(tmp_path / how), "x")
        for network, how in zip(networks, ("off", "default"), strict=True)
    ]
    assert histories[0][0]["train_loss"] == pytest.approx(histories[1][0]["train_loss"], abs=1e-3)
    assert all(
        torch.allclose(one.float(), other.float(), atol=1e-2)
        for one, other in zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True)
    )


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


def test_a_journal_tells_pace_and_machine(lesson: Lesson, tmp_path: Path) -> None:
    run = Run(tmp_path)
    loop.fit(new(), lesson, run, "x")
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    steps = [event["values"] for event in events if event["event"] == "step"]
    assert len(steps) == 3
    for step in steps:
        assert step["pictures_per_second"] > 72 / step["seconds"]  # without the look at val
        assert step["peak_memory_mib"] > 100
    told = {key: value for event in events if event["event"] == "tags" for key, value in event["values"].items()}
    assert told["device"] == "cpu"
    assert told["precision"] == "float32"
    assert told["x_seconds_per_epoch"] == pytest.approx(sorted(step["seconds"] for step in steps)[1], abs=1e-3)


def test_energy_is_what_the_counters_say(tmp_path: Path) -> None:
    """One package begins anew at its end, the other may not be read, and a part of a package is not counted twice."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("9000000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    meter = Meter(tmp_path)
    (tmp_path / "intel-rapl:0/energy_uj").write_text("500000\n")
    assert meter.joules() == {"joules": 1.5}
    assert Meter(tmp_path / "nowhere").joules() == {}
