"""Single weights that matter least become zero. Contract of a score: weights and gradients, by layer, give what each
weight is worth, all layers on one scale."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from stages.core import params, plain, zeros
from stages.core.pruning import protection
from stages.core.pruning.importances import Gradients
from stages.core.running import progress
from stages.core.running.errors import Refusal

Weights = Mapping[str, Tensor]
MOST = 0.001  # that the share of zeros may miss
GONE = -1.0  # below every score: what is zero already stays so


def _magnitude(weights: Weights, _gradients: Gradients) -> Weights:
    return {name: weight.abs() for name, weight in weights.items()}


def _lamp(weights: Weights, _gradients: Gradients) -> Weights:
    """The square as a share of those that are not smaller, itself among them (Lee et al. 2021)."""
    return {name: _share_of_larger(weight.square()) for name, weight in weights.items()}


def _snip(weights: Weights, gradients: Gradients) -> Weights:
    return {name: (weight * gradients[f"{name}.weight"].to(weight.device)).abs() for name, weight in weights.items()}


def _random(weights: Weights, _gradients: Gradients) -> Weights:
    return {name: torch.rand(weight.shape, device=weight.device) for name, weight in weights.items()}


SCORES: Mapping[str, Callable[[Weights, Gradients], Weights]] = {
    "magnitude": _magnitude,
    "lamp": _lamp,
    "snip": _snip,
    "random": _random,
}


def asked(settings: params.Zeros) -> bool:
    return not isinstance(settings, params.Scattered) or settings.share > 0


def thin(
    network: nn.Module,
    settings: params.Zeros,
    growth: float,
    protected: Sequence[str],
    gradients: Gradients,
    image_size: int,
    seed: int,
) -> None:
    """In place. `growth` is how much of what the settings ask for is due by now."""
    if not asked(settings):
        return
    torch.manual_seed(seed)
    weights = prunable(network, protected, image_size)
    with torch.no_grad():
        scores = SCORES[settings.importance.name](weights, gradients)
        scores = {name: torch.where(weights[name] == 0, GONE, score.float()) for name, score in scores.items()}
        if isinstance(settings, params.Pattern):
            _repeat(weights, scores, settings, growth)
            return
        _scatter(weights, scores, settings, round(settings.share * growth * _count(zeros.weights(network))))
    found = zeros.share(zeros.weights(network).values())
    if growth == 1 and found > settings.share + MOST:
        raise Refusal(
            f"{found:.2%} of the weights are zero already, prune.zeros.share asks for {settings.share:.2%}: raise it, "
            "or lower prune.lasso.strength"
        )


def prunable(network: nn.Module, protected: Sequence[str], image_size: int) -> dict[str, Tensor]:
    """Weights that are used as they are: a layer that standardises them would fill its zeros."""
    example = torch.zeros(2, 3, image_size, image_size, device=next(network.parameters()).device)
    asked = plain.watch(network.eval(), example).asked
    found = zeros.weights(network)
    changed = {name for name, said in asked.items() if name in found and said.weight is not found[name]}
    return {
        name: weight for name, weight in found.items() if name not in changed and not protection.covers(protected, name)
    }


def _scatter(weights: Weights, scores: Weights, settings: params.Scattered, count: int) -> None:
    """`count` zeros, however many scores are equal; layer by layer each keeps one weight."""
    candidates = _count(weights)
    if count > candidates - len(weights):
        raise Refusal(
            f"of this network's weights {(candidates - len(weights)) / candidates:.2%} of those that may go can become "
            f"zero, not {count / candidates:.2%}: lower prune.zeros.share or protect fewer layers"
        )
    if settings.ranking == "global":
        flat = torch.cat([score.flatten() for score in scores.values()])
        sizes = [weight.numel() for weight in weights.values()]
        gone = dict(zip(weights, _least(flat, count).split(sizes), strict=True))
    else:
        sizes = [weight.numel() for weight in weights.values()]
        shares = [min(own, size - 1) for own, size in zip(_divided(count, sizes), sizes, strict=True)]
        gone = {name: _least(score.flatten(), own) for (name, score), own in zip(scores.items(), shares, strict=True)}
    for name in weights:
        if gone[name].all():
            raise Refusal(
                f"prune.zeros.share {settings.share:g} would leave layer {name} without a weight: lower it, set "
                "prune.zeros.ranking to layerwise, or add the layer to prune.protect"
            )
    for name, weight in weights.items():
        weight.masked_fill_(gone[name].view_as(weight), 0.0)


def _repeat(weights: Weights, scores: Weights, settings: params.Pattern, growth: float) -> None:
    """Along the inputs; a layer whose inputs do not divide stays whole."""
    removed = round((settings.of - settings.keep) * growth)
    fitting = [name for name, weight in weights.items() if weight.shape[1] % settings.of == 0]
    if removed and len(fitting) < len(weights):
        whole = ", ".join(name for name in weights if name not in fitting)
        progress.note(f"inputs do not come in {settings.of}s, and so these stay whole: {whole}")
    if not fitting:
        raise Refusal(f"no layer has inputs that come in {settings.of}s: set prune.zeros.of to a smaller number")
    for name in fitting:
        inputs_last = scores[name].movedim(1, -1)
        rows = inputs_last.reshape(-1, settings.of)
        gone = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.argsort(dim=1)[:, :removed], value=True)
        weights[name].masked_fill_(gone.view_as(inputs_last).movedim(-1, 1), 0.0)


def _least(scores: Tensor, count: int) -> Tensor:
    gone = torch.zeros_like(scores, dtype=torch.bool)
    gone[scores.topk(count, largest=False, sorted=False).indices] = True
    return gone


def _divided(count: int, sizes: Sequence[int]) -> list[int]:
    """Each its share, and all together `count`."""
    ends = [round(count * end / sum(sizes)) for end in accumulate(sizes, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def _share_of_larger(squares: Tensor) -> Tensor:
    flat, order = squares.flatten().double().sort(descending=True)
    shares = torch.empty_like(flat)
    shares[order] = flat / flat.cumsum(0).clamp(min=torch.finfo(torch.float64).tiny)
    return shares.view_as(squares).float()


def _count(weights: Weights) -> int:
    return sum(weight.numel() for weight in weights.values())
