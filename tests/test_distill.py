"""Every method teaches through the stage; controls are equal in all but the teacher; the verdict is what seeds show."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from stages import distill
from stages.core import batches, evaluation, machine, params, statistics
from stages.core.datasets import storage
from stages.core.networks import artifact, families
from stages.core.objectives.building import OBJECTIVES
from stages.core.objectives.contract import Objective, Step
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.schooling import classes, school, verdict
from stages.core.training import checkpoint, loop
from stages.core.training.loop import Lesson
from tests.lessons import OPTIMIZERS, SMALL, Asked, change, equal, new

LABELS = params.CrossEntropy(name="cross_entropy", smoothing=0.0)
PAIR = {"student": "blocks.0", "teacher": "blocks.1"}
PEER = {"name": "residual_cnn", "blocks": 3, "hidden_layers": 0}
METHODS: dict[str, dict[str, Any]] = {
    "hinton": {"temperature": 4.0, "alpha": 0.9},
    "standardised": {"temperature": 2.0, "alpha": 0.9},
    "logit_mse": {"alpha": 0.5},
    "function_matching": {"temperature": 1.0},
    "dkd": {"temperature": 4.0, "alpha": 1.0, "beta": "auto", "warm_up_epochs": 2},
    "dist": {"temperature": 1.0, "beta": 1.0, "gamma": 1.0},
    "attention_transfer": {"layers": [PAIR], "weight": 1000.0},
    "fitnet": {"layers": [PAIR, {"student": "conv1", "teacher": "blocks.0"}], "weight": 100.0},
    "rkd": {"layers": PAIR, "distance": 25.0, "angle": 50.0},
    "crd": {"layers": PAIR, "weight": 0.8, "size": 16, "negatives": 32, "temperature": 0.07, "momentum": 0.5},
    "mutual": {"peer": PEER},
    "deeper": {"layers": ["blocks.0"], "deepest": "blocks.1", "temperature": 3.0, "alpha": 0.3, "hint": 0.03},
}
MIXUP = {"name": "mixup", "alpha": 1.0}


@pytest.fixture
def teach(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The stage, with one seed and one epoch unless said otherwise; what it wrote lies in tmp_path."""

    def run(training: dict[str, Any] | None = None, to: str = ".", **changes: Any) -> dict[str, Any]:
        wanted: dict[str, Any] = settings.distill.model_dump(mode="json") | {"seeds": 1} | changes
        wanted["training"] |= {"epochs": 1} | (training or {})
        folder = tmp_path / to
        folder.mkdir(exist_ok=True)
        distill.main(
            run=Run(folder / "run"),
            distill=params.Distill.model_validate(wanted),
            advise=settings.advise,
            augment=settings.augment,
            compute=settings.compute,
            seed=0,
            train=prepared / "train",
            val=prepared / "val",
            teacher=taught / "teacher",
            advice=taught / "advice",
            **{name: folder / name for name in ("student", "control", "companions")},
            metrics=folder / "metrics.json",
            history=folder / "curves.csv",
        )
        torch.use_deterministic_algorithms(mode=False)
        return json.loads((folder / "metrics.json").read_text())

    return run


@pytest.mark.parametrize("name", METHODS)
def test_every_method_teaches(teach: Callable[..., dict[str, Any]], tmp_path: Path, name: str) -> None:
    mix = MIXUP if name == "function_matching" else {"name": "none"}
    found = teach({"mix": mix}, method={"name": name} | METHODS[name])
    student, control = (artifact.load(tmp_path / folder) for folder in ("student", "control"))
    assert not equal(student.network, control.network)
    assert found["method"] == name
    assert found["seeds"] == {"0": {one: found[one]["val_accuracy"] for one in ("student", "control")}}
    assert found["verdict"] == "not shown"
    assert found["gain_on_val"] == found["student"]["val_accuracy"] - found["control"]["val_accuracy"]
    assert (found["gain_low"], found["gain_high"]) == (None, None)
    parents = {"teacher"} if name not in ("mutual", "deeper") else set()
    assert set(student.card.parents) == parents
    assert student.card.architecture == SMALL


def test_every_method_is_tried() -> None:
    assert set(METHODS) == set(OBJECTIVES) - {"cross_entropy"}


def test_the_control_is_a_student_of_labels_alone(
    teach: Callable[..., dict[str, Any]], prepared: Path, settings: params.Params, tmp_path: Path
) -> None:
    """Trained by hand on the same seed it is the same to the bit; and with alpha 0 the teacher is never heard."""
    found = teach({"epochs": 2}, method={"name": "hinton", "temperature": 4.0, "alpha": 0.0})
    student, control = (artifact.load(tmp_path / folder).network for folder in ("student", "control"))
    assert equal(student, control)
    assert found["gain_on_val"] == 0
    here = machine.choose(settings.compute, 0)
    train, val = (batches.on_device(storage.load(prepared / name), here) for name in ("train", "val"))
    training = settings.distill.training.model_copy(update={"epochs": 2})
    alone = Asked(lambda step: torch.nn.functional.cross_entropy(step.student.logits, step.labels))
    by_hand = new()
    loop.fit(by_hand, Lesson(train, val, alone, training, settings.augment, here, 0), Run(tmp_path / "by hand"), "x")
    torch.use_deterministic_algorithms(mode=False)
    assert equal(by_hand, control)


def test_the_teacher_gets_no_gradient_and_does_not_move(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    place = entered(prepared, settings, taught)
    before = {name: value.clone() for name, value in place.teacher.state_dict().items()}
    for name in ("hinton", "fitnet"):
        method = params.Distill.model_validate(
            settings.distill.model_dump(mode="json") | {"method": {"name": name} | METHODS[name]}
        ).method
        student = new()
        loop.fit(student, place.lesson(student, method, settings.distill.training, 0), Run(tmp_path / name), "x")
        assert not any(module._forward_hooks for one in (student, place.teacher) for module in one.modules())
    assert all(torch.equal(before[name], value) for name, value in place.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in place.teacher.parameters())
    assert not place.teacher.training


def entered(prepared: Path, settings: params.Params, taught: Path) -> school.School:
    here = machine.choose(settings.compute, 0)
    found = school.enter(
        prepared / "train",
        prepared / "val",
        taught / "teacher",
        taught / "advice",
        settings.advise,
        settings.augment,
        here,
    )
    torch.use_deterministic_algorithms(mode=False)
    return found


def test_seeds_are_told_apart_and_the_first_goes_on(teach: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    many, first = teach(seeds=3, to="many"), teach(seeds=1, to="one")
    assert list(many["seeds"]) == ["0", "1", "2"]
    assert many["student"] == first["student"]
    assert files.digest(tmp_path / "many/student/weights.safetensors") == files.digest(
        tmp_path / "one/student/weights.safetensors"
    )
    rows = (tmp_path / "many/curves.csv").read_text().splitlines()[1:]
    names = [f"{name}{ending}" for ending in ("", "-1", "-2") for name in ("control", "student")]
    assert [row.split(",")[0] for row in rows] == names
    assert len({row.split(",", 1)[1] for row in rows}) == len(rows)


def test_the_verdict_is_that_of_a_paired_t_test() -> None:
    students, controls = [0.91, 0.93, 0.92, 0.95], [0.90, 0.90, 0.91, 0.91]
    gains = [one - other for one, other in zip(students, controls, strict=True)]
    expected = stats.ttest_rel(students, controls).confidence_interval(0.95)
    found = statistics.mean_interval(gains, 0.95)
    assert found == pytest.approx((expected.low, expected.high))
    assert statistics.mean_interval(gains[:1], 0.95) is None
    assert statistics.mean_interval([0.02, 0.02], 0.95) == (0.02, 0.02)
    assert [statistics.word(one) for one in ((0.01, 0.02), (-0.02, -0.01))] == ["helps", "hurts"]
    for one in ((-0.01, 0.02), (0.0, 0.02), (0.02, 0.02), None):
        assert statistics.word(one) == "not shown"


def test_seeds_that_gain_the_same_pictures_show_nothing() -> None:
    """Of 24 pictures each student is right on one more: rounding alone tells these gains apart."""
    gains = [(right + 1) / 24 - right / 24 for right in (20, 21, 17)]
    assert statistics.word(statistics.mean_interval(gains, 0.95)) == "not shown"


@pytest.mark.parametrize(("better", "word"), [("student", "helps"), ("control", "hurts")])
def test_a_gain_is_what_the_student_has_more(
    prepared: Path, settings: params.Params, taught: Path, better: str, word: str
) -> None:
    """Accuracies written by hand: one of the two is right more often with every seed."""
    accuracies = {name: (0.80, 0.81, 0.83) if name == better else (0.70, 0.72, 0.71) for name in ("student", "control")}

    def history(accuracy: float) -> loop.History:
        return [{"epoch": 1, "rate": 0.1, "train_loss": 1.0, "val_accuracy": accuracy, "val_loss": 1.0}]

    histories = [{name: history(accuracies[name][seed]) for name in accuracies} for seed in range(3)]
    place = entered(prepared, settings, taught)
    found = verdict.compare(classes.Class(new()), histories, 7, settings.distill, place)
    sign = 1 if better == "student" else -1
    assert found["gain_on_val"] == pytest.approx(sign * (0.10 + 0.09 + 0.12) / 3)
    expected = stats.ttest_rel(accuracies["student"], accuracies["control"]).confidence_interval(0.95)
    assert (found["gain_low"], found["gain_high"]) == pytest.approx((expected.low, expected.high))
    assert found["verdict"] == word
    assert found["seeds"]["8"] == {name: accuracies[name][1] for name in accuracies}
    assert found["student"]["val_accuracy"] == accuracies["student"][0]


def test_without_a_control_nothing_is_claimed(teach: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = teach(control=False, seeds=2)
    assert (found["verdict"], found["control"], found["gain_on_val"]) == ("no control", None, None)
    assert found["seeds"]["1"]["control"] is None
    assert artifact.absent(tmp_path / "control") == "distill.control is false, or nothing was distilled"
    with pytest.raises(Refusal, match="is not a model"):
        artifact.load(tmp_path / "control")


@pytest.mark.slow
def test_peers_both_learn_and_both_have_controls(
    teach: Callable[..., dict[str, Any]], prepared: Path, settings: params.Params, tmp_path: Path
) -> None:
    found = teach({"epochs": 6, "patience": 6}, method={"name": "mutual", "peer": PEER})
    peer = artifact.load(tmp_path / "companions/peer")
    assert peer.card.architecture.model_dump() == PEER
    assert files.read_json(tmp_path / "companions/companions.json") == {"names": ["peer", "peer-control"]}
    val = batches.on_device(storage.load(prepared / "val"), machine.choose(settings.compute, 0))
    torch.use_deterministic_algorithms(mode=False)
    accuracy = evaluation.accuracy(evaluation.logits(peer.network, val), val.labels)
    assert found["companions"]["peer"]["val_accuracy"] == accuracy
    assert accuracy > 0.6 < found["student"]["val_accuracy"]
    assert found["companions"]["peer"]["control"]["epochs"] == 6
    assert (found["taught_by"], found["advice"]) == ("a peer", "none")


def test_generations_teach_each_other(teach: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = teach(guide={"name": "itself", "generations": 3})
    student = artifact.read_card(tmp_path / "student")
    assert student.parents == {"generation-2": files.digest(tmp_path / "companions/generation-2")}
    second, first = (artifact.read_card(tmp_path / f"companions/generation-{n}") for n in (2, 1))
    assert second.parents == {"generation-1": files.digest(tmp_path / "companions/generation-1")}
    assert first.parents == {"control": files.digest(tmp_path / "control")}
    assert list(found["companions"]) == ["generation-1", "generation-2"]
    assert found["taught_by"] == "itself"
    networks = [artifact.load(tmp_path / name).network for name in ("student", "control", "companions/generation-1")]
    assert not equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


class Roll:
    """Notes with what seed a network began, and what it was to learn; nobody learns."""

    def __init__(self) -> None:
        self.seeds: dict[int, int] = {}
        self.networks: dict[str, torch.nn.Module] = {}
        self.lessons: dict[str, Lesson] = {}

    def begin(self, member: params.Member, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        network = families.build(member, 3, 8)
        self.seeds[id(network)] = seed
        return network

    def fit(self, network: torch.nn.Module, lesson: Lesson, name: str) -> loop.History:
        self.networks[name], self.lessons[name] = network, lesson
        return []

    def seed(self, name: str) -> int:
        return self.seeds[id(self.networks[name])]


@pytest.mark.parametrize(
    ("method", "guide"),
    [
        ("hinton", {"name": "teacher"}),
        ("mutual", {"name": "teacher"}),
        ("hinton", {"name": "itself", "generations": 2}),
    ],
    ids=["teacher", "peer", "itself"],
)
def test_who_begins_how_and_learns_from_whom(
    prepared: Path, settings: params.Params, taught: Path, method: str, guide: dict[str, Any]
) -> None:
    place, roll = entered(prepared, settings, taught), Roll()
    told = {"method": {"name": method} | METHODS[method], "guide": guide}
    wanted = params.Distill.model_validate(settings.distill.model_dump(mode="json") | told)
    found = classes.teach(SMALL, wanted, place, 5, roll.begin, roll.fit)
    assert roll.networks["student"] is found.student
    assert roll.networks["control"] is found.control
    assert {lesson.seed for lesson in roll.lessons.values()} == {5}
    assert all(lesson.settings == wanted.training for lesson in roll.lessons.values())
    assert roll.seed("control") == 5
    guides = {name: lesson.guide for name, lesson in roll.lessons.items()}
    if guide["name"] == "itself":
        assert len({roll.seed(name) for name in ("control", "generation-1", "student")}) == 3
        assert guides["control"] is None
        assert guides["generation-1"] is found.control
        assert guides["student"] is roll.networks["generation-1"]
    elif method == "mutual":
        peer = roll.lessons["student"].objective.peers()[0]
        assert roll.seed("student") == 5 != roll.seeds[id(peer)]
        assert roll.seed("peer-control") == roll.seeds[id(peer)]
        assert set(guides.values()) == {None}
    else:
        assert roll.seed("student") == 5
        assert guides == {"control": None, "student": place.teacher}


def test_what_a_loss_learns_begins_by_the_seed(prepared: Path, settings: params.Params, taught: Path) -> None:
    place = entered(prepared, settings, taught)
    told = {"method": {"name": "fitnet"} | METHODS["fitnet"]}
    wanted = params.Distill.model_validate(settings.distill.model_dump(mode="json") | told)
    one, same, other = (place.lesson(new(), wanted.method, wanted.training, seed).objective for seed in (1, 1, 2))
    assert equal(one, same)
    assert not equal(one, other)


def test_what_a_loss_learns_takes_no_share_of_the_networks_clipping(lesson: Lesson, tmp_path: Path) -> None:
    """However steep it is, the network's steps are those of labels alone."""

    class Steep(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, step: Step) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(step.student.logits, step.labels) + 1e6 * self.weight.sum()

    ends = []
    for objective in (lesson.objective, Steep()):
        network = new()
        clipped = change(replace(lesson, objective=objective), clip_gradient=0.1, optimizer=OPTIMIZERS["sgd"], epochs=1)
        loop.fit(network, clipped, Run(tmp_path / str(len(ends))), "x")
        ends.append(network)
    assert equal(*ends)


def test_the_teacher_itself_may_go_on(teach: Callable[..., dict[str, Any]], taught: Path, tmp_path: Path) -> None:
    found = teach(student={"name": "teacher"})
    assert equal(artifact.load(tmp_path / "student").network, artifact.load(taught / "teacher").network)
    before = json.loads((taught / "teacher.json").read_text())
    assert found["student"]["val_accuracy"] == before["val_accuracy"]
    assert (found["student"]["epochs"], found["verdict"], found["taught_by"]) == (0, "no control", "nobody")
    assert artifact.read_card(tmp_path / "student").parents == {"teacher": files.digest(taught / "teacher")}
    assert (tmp_path / "curves.csv").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "guide", [{"name": "teacher"}, {"name": "itself", "generations": 1}], ids=lambda it: it["name"]
)
def test_a_layer_that_is_not_there_stops_before_training(
    teach: Callable[..., dict[str, Any]], tmp_path: Path, guide: dict[str, Any]
) -> None:
    """Before the control's, too."""
    wrong = {"layers": [{"student": "blocks.0", "teacher": "blocks.7"}], "weight": 1.0}
    with pytest.raises(Refusal, match=r"the teacher has no layer 'blocks\.7'; near it: blocks"):
        teach(method={"name": "fitnet"} | wrong, guide=guide)
    torch.use_deterministic_algorithms(mode=False)
    assert not list((tmp_path / "run").rglob("*.checkpoint"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fitnet", "crd", "mutual", "deeper"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_a_loss_learns_is_resumed_to_the_bit(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, name: str, optimizer: str
) -> None:
    """Adapters, memories and peers too; it ended in the second epoch."""
    place = entered(prepared, settings, taught)
    method = params.Distill.model_validate(
        settings.distill.model_dump(mode="json") | {"method": {"name": name} | METHODS[name]}
    ).method
    training = settings.distill.training.model_copy(update={"optimizer": OPTIMIZERS[optimizer], "epochs": 2})
    whole, broken = new(), new()

    def lesson(network: torch.nn.Module) -> Lesson:
        return place.lesson(network, method, training, 0, begin=lambda _: new(seed=9))

    unbroken = lesson(whole)
    loop.fit(whole, unbroken, Run(tmp_path / "whole"), "x")
    first, calls = lesson(broken), iter(range(99))
    plain = first.objective.forward

    def deadly(step: object) -> torch.Tensor:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return plain(step)  # pyright: ignore[reportArgumentType]

    object.__setattr__(first.objective, "forward", deadly)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(broken, first, Run(tmp_path / "broken"), "x")
    again, resumed = new(seed=3), None
    resumed = lesson(again)
    loop.fit(again, resumed, Run(tmp_path / "broken"), "x")
    assert equal(whole, again)
    assert equal(unbroken.objective, resumed.objective)
    assert list(resumed.objective.parameters())
    state = checkpoint.load(tmp_path / "broken/scratch/x.checkpoint")
    assert state is not None
    assert any(key.startswith("objective.") for key in state.network)


def test_a_peer_moves_as_the_student_does(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    """Two equal networks with equal beginnings say the same, so that mutual learning is learning alone; in both."""
    place = entered(prepared, settings, taught)
    for optimizer in ("sgd", "muon"):
        student = families_without_dropout()
        training = settings.distill.training.model_copy(update={"optimizer": OPTIMIZERS[optimizer], "epochs": 2})
        method = params.Mutual(name="mutual", peer=SMALL)
        lesson = place.lesson(student, method, training, 0, begin=lambda _: families_without_dropout())
        loop.fit(student, lesson, Run(tmp_path / optimizer), "x")
        pairs = zip(student.parameters(), lesson.objective.peers()[0].parameters(), strict=True)
        assert all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)
        assert not equal(student, families_without_dropout())


def families_without_dropout() -> torch.nn.Module:
    torch.manual_seed(0)
    return families.build(SMALL.model_copy(update={"hidden_layers": 0}), 3, 8)


def test_accumulated_parts_are_the_whole_batch(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    """With a teacher beside it, too."""
    place = entered(prepared, settings, taught)
    ends = []
    for parts in (1, 2):
        student = families_without_dropout()
        lesson = place.lesson(student, settings.distill.method, settings.distill.training, 0)
        lesson = replace(change(lesson, optimizer=OPTIMIZERS["sgd"], epochs=1), seed=0)
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)  # which keeps its statistics still
        loop.fit(student, change(lesson, accumulate=parts), Run(tmp_path / str(parts)), "x")
        ends.append(student)
    pairs = zip(ends[0].parameters(), ends[1].parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


@pytest.mark.slow
def test_compiled_networks_are_listened_to(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    """What layers say gets out of compiled code, and teaches the same."""
    place = entered(prepared, settings, taught)
    method = params.FitNet(name="fitnet", layers=(params.LayerPair.model_validate(PAIR),), weight=10.0)
    training = settings.distill.training.model_copy(update={"optimizer": OPTIMIZERS["sgd"], "epochs": 1})
    ends = []
    for mode in ("off", "default"):
        here = replace(place, machine=replace(place.machine, compile=mode))
        student = families_without_dropout()
        loop.fit(student, here.lesson(student, method, training, 0), Run(tmp_path / mode), "x")
        ends.append(student)
    pairs = zip(ends[0].state_dict().values(), ends[1].state_dict().values(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)
    assert not equal(ends[0], families_without_dropout())
