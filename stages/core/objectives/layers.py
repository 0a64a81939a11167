"""Losses that look into networks, at layers named by their paths.

A layer may say maps (N x channels x height x width), tokens (N x tokens x channels) or vectors (N x channels); where
two layers say things of different size, both are averaged down to the smaller grid, or to vectors.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import params
from stages.core.objectives.contract import Objective, Situation, Step
from stages.core.objectives.listening import overhear
from stages.core.running.errors import Refusal

TINY = 1e-12


class OfLayers(Objective):
    """Cross entropy, and something about pairs of layers."""

    def __init__(self, pairs: tuple[params.LayerPair, ...], situation: Situation) -> None:
        super().__init__()
        self.student_layers = tuple(pair.student for pair in pairs)
        self.teacher_layers = tuple(pair.teacher for pair in pairs)
        said = overhear(situation.student, self.student_layers, situation.example, "the student")
        told = overhear(situation.teacher, self.teacher_layers, situation.example, "the teacher")
        self.example = [(said[pair.student], told[pair.teacher]) for pair in pairs]

    def pairs(self, step: Step) -> list[tuple[Tensor, Tensor]]:
        said, told = step.student.layers, step.advice.layers
        paths = zip(self.student_layers, self.teacher_layers, strict=True)
        return [(said[student], told[teacher]) for student, teacher in paths]

    def forward(self, step: Step) -> Tensor:
        return functional.cross_entropy(step.student.logits.float(), step.labels) + self.apart(step)

    def apart(self, step: Step) -> Tensor:
        raise NotImplementedError


class AttentionTransfer(OfLayers):
    """Zagoruyko and Komodakis 2017, as in their code: mean squared difference of normalised maps of energy."""

    def __init__(self, settings: params.AttentionTransfer, situation: Situation) -> None:
        super().__init__(settings.layers, situation)
        self._weight = settings.weight
        for path, values in zip(self.student_layers, self.example, strict=True):
            if any(value.ndim < 3 for value in values):
                raise Refusal(f"attention_transfer: {path} or its partner says one vector a picture, and looks nowhere")
            if values[0].ndim != values[1].ndim:
                raise Refusal(
                    f"attention_transfer: of {path} and its partner one says maps, the other tokens: where they look "
                    "cannot be compared"
                )

    def apart(self, step: Step) -> Tensor:
        terms = [
            functional.mse_loss(energy(said), energy(told))
            for said, told in (aligned(*pair) for pair in self.pairs(step))
        ]
        return self._weight * torch.stack(terms).sum()


class FitNet(OfLayers):
    """Romero et al. 2015: hints, all at once instead of layer after layer; the adapters learn along."""

    def __init__(self, settings: params.FitNet, situation: Situation) -> None:
        super().__init__(settings.layers, situation)
        self._weight = settings.weight
        widths = [(said.shape[1], told.shape[1]) for said, told in (aligned(*pair) for pair in self.example)]
        self.adapters = nn.ModuleList(nn.Linear(*width) for width in widths)

    def apart(self, step: Step) -> Tensor:
        terms: list[Tensor] = []
        for adapter, pair in zip(self.adapters, self.pairs(step), strict=True):
            said, told = aligned(*pair)
            terms.append(functional.mse_loss(adapter(said.movedim(1, -1)).float(), told.movedim(1, -1)))
        return self._weight * torch.stack(terms).sum()


class RKD(OfLayers):
    """Park et al. 2019: distances between any two pictures of a batch, angles among any three."""

    def __init__(self, settings: params.RKD, situation: Situation) -> None:
        super().__init__((settings.layers,), situation)
        self._distance, self._angle = settings.distance, settings.angle

    def apart(self, step: Step) -> Tensor:
        said, told = (vectors(values) for values in self.pairs(step)[0])
        with torch.autocast(said.device.type, enabled=False):
            distance = functional.smooth_l1_loss(distances(said), distances(told))
            angle = functional.smooth_l1_loss(angles(said), angles(told))
        return self._distance * distance + self._angle * angle


class CRD(OfLayers):
    """Tian et al. 2020, with a memory of every picture: of N pictures and K negatives, noise has the weight K / N."""

    student_memory: Tensor
    teacher_memory: Tensor
    scales: Tensor

    def __init__(self, settings: params.CRD, situation: Situation) -> None:
        super().__init__((settings.layers,), situation)
        self._settings, self._count = settings, situation.pictures
        said, told = self.example[0]
        self.student_head = nn.Linear(vectors(said).shape[1], settings.size)
        self.teacher_head = nn.Linear(vectors(told).shape[1], settings.size)
        reach = (3 / settings.size) ** 0.5
        for name in ("student_memory", "teacher_memory"):
            memory = torch.rand(situation.pictures, settings.size).mul_(2 * reach).sub_(reach)
            self.register_buffer(name, memory.to(said.device))
        self.register_buffer("scales", torch.zeros(2, device=said.device))  # set by the first batch

    def apart(self, step: Step) -> Tensor:
        said, told = (vectors(values) for values in self.pairs(step)[0])
        said = functional.normalize(self.student_head(said).float(), dim=1)
        told = functional.normalize(self.teacher_head(told).float(), dim=1)
        own = step.numbers[:, None]
        others = torch.randint(self._count, (len(own), self._settings.negatives), device=own.device)
        chosen = torch.cat([own, others], dim=1)
        with torch.autocast(said.device.type, enabled=False):
            terms = self._noise_contrast(said, self.teacher_memory[chosen], 0) + self._noise_contrast(
                told, self.student_memory[chosen], 1
            )
        for memory, newest in ((self.student_memory, said), (self.teacher_memory, told)):
            self._remember(memory, step.numbers, newest.detach())
        return self._settings.weight * terms

    def _noise_contrast(self, anchors: Tensor, remembered: Tensor, side: int) -> Tensor:
        likeness = torch.einsum("nkd,nd->nk", remembered, anchors).div(self._settings.temperature).exp()
        with torch.no_grad():
            first = likeness.mean() * self._count
            self.scales[side] = torch.where(self.scales[side] == 0, first, self.scales[side])
        chances = likeness / self.scales[side].clone()
        noise = self._settings.negatives / self._count
        right = (chances[:, 0] / (chances[:, 0] + noise + TINY)).log()
        wrong = (noise / (chances[:, 1:] + noise + TINY)).log()
        return -(right.sum() + wrong.sum()) / len(anchors)

    def _remember(self, memory: Tensor, numbers: Tensor, newest: Tensor) -> None:
        kept = self._settings.momentum
        memory[numbers] = functional.normalize(kept * memory[numbers] + (1 - kept) * newest, dim=1)


class Deeper(Objective):
    """Zhang et al. 2019, be your own teacher: classifiers along the way learn from labels and from the end."""

    def __init__(self, settings: params.Deeper, situation: Situation) -> None:
        super().__init__()
        self._settings = settings
        self.student_layers = (*settings.layers, settings.deepest)
        said = overhear(situation.student, self.student_layers, situation.example, "the student")
        width = vectors(said[settings.deepest]).shape[1]
        widths = [vectors(said[path]).shape[1] for path in settings.layers]
        self.adapters = nn.ModuleList(nn.Linear(one, width) for one in widths)
        self.heads = nn.ModuleList(nn.Linear(width, situation.classes) for _ in widths)

    def forward(self, step: Step) -> Tensor:
        asked, end = self._settings, step.student.logits.float()
        hint, advice = vectors(step.student.layers[asked.deepest]).detach(), end.detach()
        total = functional.cross_entropy(end, step.labels)
        for path, adapter, head in zip(asked.layers, self.adapters, self.heads, strict=True):
            inner = adapter(vectors(step.student.layers[path]))
            answers = head(inner).float()
            told = (advice / asked.temperature).log_softmax(dim=1)
            said = (answers / asked.temperature).log_softmax(dim=1)
            soft = functional.kl_div(said, told, reduction="batchmean", log_target=True) * asked.temperature**2
            hard = functional.cross_entropy(answers, step.labels)
            near = (inner.float() - hint).square().sum(dim=1).mean()
            total = total + (1 - asked.alpha) * hard + asked.alpha * soft + asked.hint * near
        return total


# ------------------------------------------------------------------------------------------ what layers say


def channels_first(said: Tensor) -> Tensor:
    """Tokens too: N x channels x tokens."""
    return said.float().transpose(1, 2) if said.ndim == 3 else said.float()


def vectors(said: Tensor) -> Tensor:
    """N x channels, averaged over places."""
    values = channels_first(said)
    return values.flatten(2).mean(dim=2) if values.ndim > 2 else values


def aligned(said: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """Channels first, on one grid."""
    if said.ndim != told.ndim:
        return vectors(said), vectors(told)
    first, second = channels_first(said), channels_first(told)
    grid = tuple(min(sizes) for sizes in zip(first.shape[2:], second.shape[2:], strict=True))
    return _averaged(first, grid), _averaged(second, grid)


def _averaged(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    if tuple(values.shape[2:]) == grid:
        return values
    return (
        functional.adaptive_avg_pool2d(values, grid) if len(grid) == 2 else functional.adaptive_avg_pool1d(values, grid)
    )


def energy(values: Tensor) -> Tensor:
    return functional.normalize(values.square().mean(dim=1).flatten(1), dim=1)


def distances(points: Tensor) -> Tensor:
    """Euclidean, of all pairs, in units of their mean."""
    squared = (points[:, None] - points[None]).square().sum(dim=2)
    found = squared.clamp(min=TINY).sqrt() * (squared > 0)
    return found / (found.sum() / (found > 0).sum().clamp(min=1)).clamp(min=TINY)


def angles(points: Tensor) -> Tensor:
    """Cosines at each point between the ways to any two others."""
    ways = functional.normalize(points[None] - points[:, None], dim=2)
    return ways @ ways.transpose(1, 2)


LOSSES: Mapping[str, type[AttentionTransfer | FitNet | RKD | CRD | Deeper]] = {
    "attention_transfer": AttentionTransfer,
    "fitnet": FitNet,
    "rkd": RKD,
    "crd": CRD,
    "deeper": Deeper,
}
