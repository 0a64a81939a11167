"""The loop: resumed runs equal unbroken ones, val alone chooses, and nothing that is not a number passes."""

import copy
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import batches, evaluation, machine, params, weights
from stages.core.datasets import storage
from stages.core.networks import families
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import checkpoint, loop, objectives, optimizers
from stages.core.training.energy import Meter
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
    return families.build(SMALL, 3, 8)


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class Killed(BaseException):
    """What no handler of the loop may catch."""


OPTIMIZERS: dict[str, params.Optimizer] = {
    "sgd": params.SGD(name="sgd", rate=0.05, momentum=0.9, weight_decay=1e-4),
    "adam": params.Adam(name="adam", rate=0.01, weight_decay=1e-4),
    "adamw": params.AdamW(name="adamw", rate=0.01, weight_decay=0.05),
    "adamw_8bit": params.Adam8bit(name="adamw_8bit", rate=0.01, weight_decay=0.05),
    "shampoo": params.Shampoo(name="shampoo", rate=0.05, momentum=0.5, weight_decay=1e-4, every=3),
    "muon": params.Muon(name="muon", rate=0.02, momentum=0.9, weight_decay=0.05, others_rate=0.01),
}


def everything(lesson: Lesson, optimizer: params.Optimizer) -> Lesson:
    """Averaged weights, two parts a batch, both pictures and labels mixed, a schedule that looks back."""
    return change(
        lesson,
        optimizer=optimizer,
        schedule=params.Plateau(name="plateau", warm_up_epochs=0.5, factor=0.5, patience=0),
        average=0.9,
        accumulate=2,
        mix=params.Mixed(name="mixup", alpha=0.4),
    )


@pytest.mark.parametrize("steps_before_death", [1, 5, 7, 12])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_ends_as_an_unbroken_one(
    lesson: Lesson, tmp_path: Path, steps_before_death: int, optimizer: str
) -> None:
    lesson = change(lesson, optimizer=OPTIMIZERS[optimizer])
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
    resumed = new(seed=99)  # what it began with is kept, too
    assert loop.fit(resumed, lesson, Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)


@pytest.mark.parametrize("steps_before_signal", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_was_asked_to_end_keeps_the_step_it_was_in(
    lesson: Lesson, tmp_path: Path, optimizer: str, steps_before_signal: int
) -> None:
    lesson = everything(lesson, OPTIMIZERS[optimizer])
    unbroken, resumed = new(), new(seed=99)
    history = loop.fit(unbroken, lesson, Run(tmp_path / "unbroken"), "x")
    calls, plain = iter(range(1, 1000)), lesson.objective

    def asked(*arguments: Tensor) -> Tensor:
        if next(calls) == 2 * steps_before_signal:  # two parts a step
            signal.raise_signal(signal.SIGTERM)
        return plain(*arguments)

    with pytest.raises(SystemExit) as end:
        loop.fit(new(), replace(lesson, objective=asked), Run(tmp_path / "broken"), "x")
    assert end.value.code == 128 + signal.SIGTERM
    assert next(calls) == 2 * steps_before_signal + 1  # that step was the last
    left, seen = iter(range(1, 1000)), lesson.objective

    def counted(*arguments: Tensor) -> Tensor:
        next(left)
        return seen(*arguments)

    assert loop.fit(resumed, replace(lesson, objective=counted), Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)
    assert next(left) == 2 * (3 * BATCHES - steps_before_signal) + 1  # and nothing was done twice


def test_ctrl_c_is_what_it_is_elsewhere(lesson: Lesson, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def asked(*arguments: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return lesson.objective(*arguments)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(new(), replace(lesson, objective=asked), Run(tmp_path), "x")
    assert signal.getsignal(signal.SIGINT) is before


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

    loop.fit(plain, replace(change(lesson, average=None), objective=note), Run(tmp_path / "plain"), "x")
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


def test_without_a_compiler_nothing_is_compiled(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refusal, match=r"compute\.compile needs a C\+\+ compiler"):
        replace(lesson.machine, compile="default").compiled(new())


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


def test_norms_and_biases_do_not_decay() -> None:
    network = families.build(SMALL, 3, 8)
    decaying, still = optimizers.build(params.AdamW(name="adamw", rate=0.1, weight_decay=0.1), network).param_groups
    assert {weight.ndim for weight in decaying["params"]} == {2, 4}
    assert still["weight_decay"] == 0
    assert {weight.ndim for weight in still["params"]} == {1}
    assert len(decaying["params"]) + len(still["params"]) == len(list(network.parameters()))


def test_what_a_network_says_of_itself_does_not_decay() -> None:
    vit = params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 1, "patch_size": 4})
    network = families.build(vit, 3, 8)
    decaying, _ = optimizers.build(
        params.SGD(name="sgd", rate=0.1, momentum=0.9, weight_decay=0.1), network
    ).param_groups
    names = {id(weight): name for name, weight in network.named_parameters()}
    told = {names[id(weight)] for weight in decaying["params"]}
    assert told == {name for name, weight in network.named_parameters() if weight.ndim > 1} - {"pos_embed", "cls_token"}


def test_muon_moves_hidden_weights_and_adamw_the_rest() -> None:
    network = new()
    hidden, *others = optimizers.build(OPTIMIZERS["muon"], network).param_groups
    names = {id(weight): name for name, weight in network.named_parameters()}
    told = {names[id(weight)] for weight in hidden["params"]}
    matrices = {name for name, weight in network.named_parameters() if weight.ndim > 1}
    assert told == matrices - {"conv1.weight", "head.4.weight"}
    assert (hidden["full_rate"], {group["full_rate"] for group in others}) == (0.02, {0.01})
    assert [group["use_muon"] for group in (hidden, *others)] == [True, False, False]


def test_sgd_looks_ahead_as_nesterov_does() -> None:
    """Two steps by hand: v = m v + g, and the weight moves by g + m v."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    optimizer = optimizers.build(params.SGD(name="sgd", rate=0.1, momentum=0.5, weight_decay=0.0), network)
    for gradient in (1.0, 2.0):
        network.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
    first = 1.0 - 0.1 * (1.0 + 0.5 * 1.0)
    assert network.weight.item() == pytest.approx(first - 0.1 * (2.0 + 0.5 * (0.5 * 1.0 + 2.0)))


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


@pytest.mark.parametrize(
    ("wanted", "native", "expected"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("float16", True, torch.bfloat16),
        ("float16", False, torch.float32),
    ],
)
def test_precision_is_what_was_asked_for_or_what_the_processor_is_good_at(
    settings: params.Params,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: str,
    native: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "amx_bf16": False})
    here = machine.choose(settings.compute.model_copy(update={"precision": wanted}), 0)
    with here.autocast():
        assert nn.Linear(3, 3)(torch.ones(1, 3)).dtype == expected
    assert ("float16 is slow on CPUs and not used here" in capsys.readouterr().out) == (wanted == "float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"compute\.device: no cuda on this machine; here: auto, cpu"):
        machine.choose(settings.compute.model_copy(update={"device": "cuda"}), 0)
