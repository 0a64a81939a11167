"""Losses that look into networks: formulas by hand, shapes that differ, names that are wrong."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import params
from stages.core.networks import families
from stages.core.objectives import building, layers
from stages.core.objectives.contract import Answer, Objective, Situation, Step
from stages.core.objectives.listening import Listening, overhear
from stages.core.running.errors import Refusal
from tests.lessons import SMALL

CLASSES, PICTURES = 3, 12
PAIR = params.LayerPair(student="maps", teacher="maps")
AT = params.AttentionTransfer(name="attention_transfer", layers=(PAIR,), weight=7.0)
FITNET = params.FitNet(name="fitnet", layers=(PAIR,), weight=5.0)
RKD = params.RKD(name="rkd", layers=PAIR, distance=2.0, angle=3.0)
CRD = params.CRD(name="crd", layers=PAIR, weight=0.8, size=4, negatives=6, temperature=0.5, momentum=0.5)
DEEPER = params.Deeper(name="deeper", layers=("maps",), deepest="end", temperature=2.0, alpha=0.3, hint=0.1)


class Said(nn.Module):
    """Says what it is told to, at a layer that is called `maps`."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.maps, self.end, self.head = nn.Identity(), nn.Identity(), nn.Linear(4, CLASSES)
        self.said = said

    def forward(self, _images: Tensor) -> Tensor:
        said = self.maps(self.said)
        return self.head(self.end(layers.vectors(said)[:, :1].repeat(1, 4)))


def built(settings: params.Anything, said: Tensor, told: Tensor) -> Objective:
    def nobody(_member: params.Member) -> nn.Module:
        raise AssertionError

    situation = Situation(Said(said), Said(told), torch.zeros(2, 3, 4, 4), CLASSES, PICTURES, nobody)
    return building.build(settings, situation, seed=0)


def step(said: Tensor, told: Tensor, **more: Tensor) -> tuple[Step, Tensor]:
    """And the cross entropy that each of these losses begins with."""
    torch.manual_seed(1)
    logits, labels = torch.randn(len(said), CLASSES), torch.arange(len(said)) % CLASSES
    student = Answer(logits, {"maps": said} | more)
    one = Step(torch.zeros(1), labels, torch.arange(len(said)), student, Answer(logits, {"maps": told}), 0)
    return one, functional.cross_entropy(logits, labels)


def test_attention_transfer_by_hand() -> None:
    """Zagoruyko and Komodakis 2017, equation 2 with p = 2, squared and averaged as in their code."""
    said, told = torch.randn(4, 5, 3, 3), torch.randn(4, 8, 3, 3)
    total = 0.0
    for picture in range(4):
        maps = [values[picture].square().sum(0).flatten() for values in (said, told)]
        maps = [values / values.square().sum().sqrt() for values in maps]
        total += ((maps[0] - maps[1]) ** 2).sum().item() / (4 * 9)
    given, alone = step(said, told)
    assert built(AT, said, told)(given).item() == pytest.approx(alone.item() + 7.0 * total, rel=1e-5)


def test_a_hint_by_hand() -> None:
    said, told = torch.randn(4, 5, 3, 3), torch.randn(4, 8, 3, 3)
    loss = built(FITNET, said, told)
    weight, bias = (dict(loss.named_parameters())[f"adapters.0.{name}"] for name in ("weight", "bias"))
    adapted = functional.conv2d(said, weight[:, :, None, None], bias)
    given, alone = step(said, told)
    torch.testing.assert_close(loss(given), alone + 5.0 * ((adapted - told) ** 2).mean())


def test_relations_by_hand() -> None:
    """Park et al. 2019, equations 4 and 7, pair by pair and triplet by triplet."""
    said, told = torch.randn(4, 5, 2, 2), torch.randn(4, 8, 2, 2)
    points = [values.mean((2, 3)) for values in (said, told)]

    def huber(first: float, second: float) -> float:
        apart = abs(first - second)
        return apart**2 / 2 if apart <= 1 else apart - 0.5

    spread = []
    for one in points:
        apart = [[float((a - b).norm()) for b in one] for a in one]
        mean = sum(map(sum, apart)) / 12
        spread.append([[value / mean for value in row] for row in apart])
    distance = sum(huber(spread[0][i][j], spread[1][i][j]) for i in range(4) for j in range(4)) / 16
    angle = 0.0
    for at in range(4):
        for i in range(4):
            for j in range(4):
                cosines = []
                for one in points:
                    first, second = one[i] - one[at], one[j] - one[at]
                    sizes = float(first.norm() * second.norm())
                    cosines.append(float(first @ second) / sizes if sizes else 0.0)
                angle += huber(*cosines) / 64
    given, alone = step(said, told)
    found = built(RKD, said, told)(given).item()
    assert found == pytest.approx(alone.item() + 2.0 * distance + 3.0 * angle, rel=1e-4)


def test_relations_of_equal_pictures_have_finite_gradients() -> None:
    said = torch.ones(4, 5, 2, 2, requires_grad=True)
    given, _ = step(said, torch.randn(4, 8, 2, 2))
    built(RKD, said, torch.randn(4, 8, 2, 2))(given).backward()
    assert said.grad is not None
    assert said.grad.isfinite().all()


def test_contrast_by_hand() -> None:
    """Tian et al. 2020: h = e^(s.t / T) / Z over h + K / N, Z from the first batch, one side after the other."""
    said, told = torch.randn(3, 5, 2, 2), torch.randn(3, 8, 2, 2)
    loss = built(CRD, said, told)
    assert isinstance(loss, layers.CRD)
    memories = [loss.teacher_memory.clone(), loss.student_memory.clone()]
    given, alone = step(said, told)
    torch.manual_seed(5)
    found = loss(given).item()
    torch.manual_seed(5)
    others = torch.randint(PICTURES, (3, 6))
    heads = (loss.student_head(said.mean((2, 3))), loss.teacher_head(told.mean((2, 3))))
    anchors = [values.detach() / values.norm(dim=1, keepdim=True).detach() for values in heads]
    total = 0.0
    for anchor, memory in zip(anchors, memories, strict=True):
        near = [[math.exp(float(anchor[n] @ memory[k]) / 0.5) for k in (n, *others[n].tolist())] for n in range(3)]
        scale = sum(map(sum, near)) / (3 * 7) * PICTURES
        noise = 6 / PICTURES
        for row in near:
            right, *wrong = (value / scale for value in row)
            total -= math.log(right / (right + noise)) + sum(math.log(noise / (one + noise)) for one in wrong)
    assert found == pytest.approx(alone.item() + 0.8 * total / 3, rel=1e-4)
    moved = 0.5 * memories[1][:3] + 0.5 * anchors[0]
    torch.testing.assert_close(loss.student_memory[:3], moved / moved.norm(dim=1, keepdim=True))
    assert torch.equal(loss.student_memory[3:], memories[1][3:])
    scales = loss.scales.clone()
    loss(given)
    assert torch.equal(loss.scales, scales)


def test_a_deeper_self_by_hand() -> None:
    """Zhang et al. 2019, equation 5: labels, the end's answers, a hint; the end learns from labels alone."""
    said, end = torch.randn(4, 5, 2, 2), torch.randn(4, 6, requires_grad=True)
    loss = layers.Deeper(
        DEEPER, Situation(Said(said), None, torch.zeros(2, 3, 4, 4), CLASSES, PICTURES, lambda _: nn.Identity())
    )
    loss.adapters[0] = nn.Linear(5, 6)
    loss.heads[0] = nn.Linear(6, CLASSES)
    given, alone = step(said, said, end=end)
    given.student.logits.requires_grad_()
    inner = loss.adapters[0](said.mean((2, 3)))
    answers, logits = loss.heads[0](inner), given.student.logits
    p, q = (values.div(2.0).softmax(1) for values in (logits, answers))
    soft = 4.0 * (p * (p / q).log()).sum(1).mean()
    hard = functional.cross_entropy(answers, given.labels)
    expected = alone + 0.7 * hard + 0.3 * soft + 0.1 * ((inner - end) ** 2).sum() / 4
    found = loss(given)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert end.grad is None
    chances = logits.detach().softmax(1) - functional.one_hot(given.labels, CLASSES)
    torch.testing.assert_close(logits.grad, chances / 4)


def test_a_peer_by_hand() -> None:
    """Zhang et al. 2018: each its own cross entropy, and KL to what the other said."""
    torch.manual_seed(0)
    mine, theirs, labels = (
        torch.randn(4, CLASSES, requires_grad=True),
        torch.randn(4, CLASSES),
        torch.arange(4) % CLASSES,
    )

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.said = nn.Parameter(theirs.clone())

        def forward(self, _images: Tensor) -> Tensor:
            return self.said

    situation = Situation(nn.Identity(), None, torch.zeros(2, 3, 4, 4), CLASSES, PICTURES, lambda _: Peer())
    loss = building.build(params.Mutual(name="mutual", peer=SMALL), situation, seed=0)
    found = loss(Step(torch.zeros(1), labels, torch.arange(4), Answer(mine), None, 0))
    p, q = mine.detach().softmax(1), theirs.softmax(1)
    both = (p * (p / q).log()).sum(1).mean() + (q * (q / p).log()).sum(1).mean()
    hard = functional.cross_entropy(mine, labels) + functional.cross_entropy(theirs, labels)
    torch.testing.assert_close(found, hard + both)
    found.backward()
    one_hot = functional.one_hot(labels, CLASSES)
    torch.testing.assert_close(mine.grad, ((p - one_hot) + (p - q)) / 4)
    torch.testing.assert_close(loss.peers()[0].said.grad, ((q - one_hot) + (q - p)) / 4)


def test_peers_say_maps_as_rows_for_each_pixel() -> None:
    """Segmentation: N x classes x height x width costs as much as its pixels one by one."""
    mine, theirs, labels = torch.randn(24, CLASSES), torch.randn(24, CLASSES), torch.arange(24) % CLASSES

    class Peer(nn.Module):
        def __init__(self, said: Tensor) -> None:
            super().__init__()
            self.said = said

        def forward(self, _images: Tensor) -> Tensor:
            return self.said

    found: list[Tensor] = []
    for shape in ((24,), (2, 3, 4)):
        said, told = (values.view(*shape, CLASSES).movedim(-1, 1) for values in (mine, theirs))
        situation = Situation(
            nn.Identity(), None, torch.zeros(2, 3, 4, 4), CLASSES, PICTURES, lambda _, it=told: Peer(it)
        )
        loss = building.build(params.Mutual(name="mutual", peer=SMALL), situation, seed=0)
        found.append(loss(Step(torch.zeros(1), labels.view(shape), torch.arange(len(said)), Answer(said), None, 0)))
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------------------ what layers say

MAPS, TOKENS, VECTORS = torch.randn(4, 8, 6, 6), torch.randn(4, 17, 8), torch.randn(4, 8)


@pytest.mark.parametrize("settings", [AT, FITNET, RKD, CRD])
@pytest.mark.parametrize("told", [torch.randn(4, 6, 4, 4), torch.randn(4, 6, 7, 5), torch.randn(4, 10, 6)])
def test_whatever_two_layers_say_is_brought_together(settings: params.Anything, told: Tensor) -> None:
    for said in (MAPS.clone(), TOKENS.clone()):
        said.requires_grad_()
        given, _ = step(said, told)
        if settings is AT and said.ndim != told.ndim:
            with pytest.raises(Refusal, match="one says maps, the other tokens"):
                built(settings, said, told)
            continue
        built(settings, said, told)(given).backward()
        assert said.grad is not None
        assert said.grad.abs().sum() > 0


def test_grids_are_averaged_down_to_the_smaller_one() -> None:
    said, told = layers.aligned(MAPS, torch.randn(4, 6, 3, 6))
    assert said.shape[2:] == told.shape[2:] == (3, 6)
    torch.testing.assert_close(said[:, :, 0], (MAPS[:, :, 0] + MAPS[:, :, 1]) / 2)
    assert [one.shape for one in layers.aligned(MAPS, VECTORS)] == [(4, 8), (4, 8)]
    torch.testing.assert_close(layers.vectors(TOKENS), TOKENS.mean(1))


def test_a_vector_looks_nowhere() -> None:
    with pytest.raises(Refusal, match="looks nowhere"):
        built(AT, VECTORS, VECTORS)


def test_a_layer_that_is_not_there_is_named_with_those_that_are() -> None:
    network = families.build(SMALL, CLASSES, 8)
    with pytest.raises(Refusal, match=r"the student has no layer 'head\.9'; near it: head\.\d.*it has conv1, "):
        overhear(network, ("head.9",), torch.zeros(2, 3, 8, 8), "the student")


def test_what_a_layer_said_stays_what_it_said() -> None:
    """Though the next one writes over it."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten()).eval()
    images = torch.randn(2, 3, 8, 8)
    said = overhear(network, ("1",), images, "the student")["1"]
    with torch.no_grad():
        torch.testing.assert_close(said, network[1](network[0](images)))
    assert said.min() < 0


def test_a_layer_that_answers_nothing_useful_is_named() -> None:
    class Pair(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.unused = Pair(), nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return self.pair(images)[0].flatten(1)

    with pytest.raises(Refusal, match="layer pair says no maps, tokens or vectors"):
        overhear(Network(), ("pair",), torch.zeros(2, 3, 8, 8), "the teacher")
    with pytest.raises(Refusal, match="layer unused is not asked"):
        overhear(Network(), ("unused",), torch.zeros(2, 3, 8, 8), "the teacher")


def test_listening_leaves_no_trace() -> None:
    network = families.build(SMALL, CLASSES, 8).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    overhear(network, ("conv1",), torch.randn(2, 3, 8, 8), "the student")
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    listening = Listening(network, ("conv1",), "the student")
    assert set(listening.answer(network, torch.randn(2, 3, 8, 8)).layers) == {"conv1"}
    listening.close()
    with pytest.raises(Refusal, match="no layer 'conv9'"):
        Listening(network, ("conv1", "conv9"), "the student")
    assert not any(module._forward_hooks for module in network.modules())
