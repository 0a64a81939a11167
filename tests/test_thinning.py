"""As many weights become zero as was asked for, those that matter least, and zero they stay."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from stages.core import params, zeros
from stages.core.pruning import thinning
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import loop
from stages.core.training.loop import Lesson
from tests import lessons
from tests.lessons import change, new

SIZE = 8
IMPORTANCES: dict[str, params.WeightImportance] = {
    "magnitude": params.Size(name="magnitude"),
    "lamp": params.LAMP(name="lamp"),
    "snip": params.SNIP(name="snip", pictures=16),
    "random": params.Random(name="random"),
}


def scattered(share: float, importance: str = "magnitude", ranking: str = "global") -> params.Scattered:
    settings = {"name": "scattered", "share": share, "importance": IMPORTANCES[importance], "ranking": ranking}
    return params.Scattered.model_validate(settings)


def pattern(keep: int, of: int) -> params.Pattern:
    return params.Pattern(name="pattern", keep=keep, of=of, importance=IMPORTANCES["magnitude"])


def gradients(network: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn_like(parameter) for name, parameter in network.named_parameters()}


def thin(network: nn.Module, settings: params.Zeros, growth: float = 1.0, protected: tuple[str, ...] = ()) -> nn.Module:
    thinning.thin(network, settings, growth, protected, gradients(network), SIZE, seed=0)
    return network


def every(network: nn.Module) -> Tensor:
    return torch.cat([weight.flatten() for weight in zeros.weights(network).values()])


def zero_share(network: nn.Module) -> float:
    return float((every(network) == 0).double().mean())


@pytest.mark.parametrize("ranking", ["global", "layerwise"])
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_as_many_as_asked_and_more_later(importance: str, ranking: str) -> None:
    """Also when asked in turns, as a schedule does: what is zero stays so, and counts."""
    network = new()
    settings = scattered(0.9, importance, ranking)
    before = torch.zeros(0)
    for growth in (0.3, 0.7, 1.0):
        thin(network, settings, growth)
        assert zero_share(network) == pytest.approx(0.9 * growth, abs=0.0005)
        now = every(network) == 0
        assert not len(before) or bool(now[before].all())
        before = now
    if ranking == "layerwise":
        assert all(share == pytest.approx(0.9, abs=0.01) for share in zeros.by_layer(network).values())


def test_the_smallest_of_all_go() -> None:
    network = new()
    sizes = every(network).abs()
    gone = every(thin(network, scattered(0.5))) == 0
    assert sizes[gone].max() <= sizes[~gone].min()


def test_the_smallest_of_each_layer_go() -> None:
    before, after = (zeros.weights(one) for one in (new(), thin(new(), scattered(0.5, ranking="layerwise"))))
    for name, weight in before.items():
        gone = after[name] == 0
        assert weight[gone].abs().max() <= weight[~gone].abs().min()
    shares = zeros.by_layer(thin(new(), scattered(0.5)))
    assert max(shares.values()) - min(shares.values()) > 0.2  # globally it is otherwise


def test_snip_is_weight_times_gradient() -> None:
    network = new()
    felt = torch.cat(
        [
            (weight * gradients(network)[f"{name}.weight"]).abs().flatten()
            for name, weight in zeros.weights(network).items()
        ]
    )
    gone = every(thin(network, scattered(0.6, "snip"))) == 0
    assert felt[gone].max() <= felt[~gone].min()


def test_lamp_by_hand() -> None:
    """Lee et al. 2021, equation 3, written as its sum over what is not smaller."""
    weights = {"a": torch.tensor([[3.0, -1.0], [2.0, 0.5]]), "b": torch.tensor([[0.1, 0.2]])}
    found = thinning.SCORES["lamp"](weights, {})
    for name, weight in weights.items():
        by_hand = [
            [w**2 / sum(v**2 for v in weight.flatten().tolist() if v**2 >= w**2) for w in row]
            for row in weight.tolist()
        ]
        assert torch.allclose(found[name], torch.tensor(by_hand))
    assert found["a"].max() == found["b"].max() == 1  # no layer is ever emptied before all others


def test_random_follows_the_seed() -> None:
    networks = [new() for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        thinning.thin(network, scattered(0.5, "random"), 1.0, (), {}, SIZE, seed)
    same, again, other = (every(network) == 0 for network in networks)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_protected_layers_keep_all_and_the_others_give_their_share() -> None:
    network = thin(new(), scattered(0.5, ranking="layerwise"), protected=("blocks.1.conv1",))
    assert zeros.by_layer(network)["blocks.1.conv1"] == 0
    assert zeros.by_layer(network)["blocks.1.conv2"] > 0.6
    shares = zeros.by_layer(thin(new(), scattered(0.1, ranking="layerwise"), protected=("blocks.1",)))
    assert {name for name, share in shares.items() if share} == {name for name in shares if "blocks.1." not in name}
    assert zero_share(network) == pytest.approx(0.5, abs=0.0005)


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (1, 2)])
def test_a_pattern_repeats_along_the_inputs(keep: int, of: int) -> None:
    before, after = zeros.weights(new()), zeros.weights(thin(new(), pattern(keep, of)))
    for name, weight in before.items():
        if weight.shape[1] % of:
            assert torch.equal(after[name], weight), name
            continue
        for start in range(0, weight.shape[1], of):
            old, left = weight[:, start : start + of].abs(), after[name][:, start : start + of]
            assert ((left != 0).sum(dim=1) == keep).all(), name
            assert torch.equal(
                (left != 0).nonzero(), (old >= old.topk(keep, dim=1).values.amin(1, keepdim=True)).nonzero()
            )
    assert any(weight.shape[1] % of for weight in before.values()) == (3 % of != 0)


def test_a_pattern_grows_with_the_schedule() -> None:
    network, counts = new(), []
    for growth in (0.5, 1.0):
        weight = zeros.weights(thin(network, pattern(1, 4), growth))["blocks.1.conv2"]
        counts.append((weight[:, :4] != 0).sum(dim=1).unique().tolist())
    assert counts == [[2], [1]]  # 1.5 of 3 are due halfway, rounded to even


class Standardised(nn.Conv2d):
    """As in timm: the weight that is used is another than the one that is kept."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.conv2d(input, self.weight - self.weight.mean(), self.bias, padding=1)


def test_weights_that_are_not_used_as_they_are_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Standardised(8, 8, 3), nn.Flatten(), nn.Linear(8 * 64, 4))
    thin(network, scattered(0.5))
    assert zeros.by_layer(network)["1"] == 0
    assert zero_share(network) == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (scattered(0.9999), r"of this network's weights 99\.\d+% of those that may go can become zero, not 99\.99%"),
        (pattern(1, 64), "no layer has inputs that come in 64s: set prune.zeros.of to a smaller number"),
    ],
)
def test_what_cannot_be_is_refused(settings: params.Zeros, reason: str) -> None:
    network = new()
    before = every(network)
    with pytest.raises(Refusal, match=reason):
        thin(network, settings)
    assert torch.equal(before, every(network))


def test_a_layer_that_would_be_emptied_is_named() -> None:
    network = new()
    zeros.weights(network)["blocks.0.conv1"].data.mul_(1e-6)
    with pytest.raises(
        Refusal, match=r"^prune.zeros.share 0.7 would leave layer blocks.0.conv1 without a weight: lower"
    ):
        thin(network, scattered(0.7))
    assert zero_share(thin(new(), scattered(0.7, ranking="layerwise"))) == pytest.approx(0.7, abs=0.001)


def test_more_zeros_than_asked_for_are_refused() -> None:
    """As training that draws channels to zero may leave them; while a schedule is under way they may come and go."""
    network = thin(new(), scattered(0.5))
    thin(network, scattered(0.3), growth=0.5)
    with pytest.raises(
        Refusal, match=r"^50\.0\d% of the weights are zero already, prune.zeros.share asks for 30.00%: "
    ):
        thin(network, scattered(0.3))


def test_the_smallest_layer_keeps_a_weight() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1), nn.Flatten(), nn.Linear(64, 4))
    thin(network, scattered(0.95, ranking="layerwise"))
    assert all(share < 1 for share in zeros.by_layer(network).values())
    assert zeros.by_layer(network)["1"] == 7 / 8


@given(st.integers(0, 1000), st.lists(st.integers(1, 500), min_size=1, max_size=9))
def test_shares_of_layers_add_up(count: int, sizes: list[int]) -> None:
    found = thinning._divided(min(count, sum(sizes)), sizes)
    assert sum(found) == min(count, sum(sizes))
    assert all(0 <= own <= size for own, size in zip(found, sizes, strict=True))


@pytest.mark.parametrize("optimizer", lessons.OPTIMIZERS)
@pytest.mark.parametrize("average", [None, pytest.param(0.9, marks=pytest.mark.slow)])
def test_zeros_stay_whatever_learns(lesson: Lesson, optimizer: str, average: float | None, tmp_path: Path) -> None:
    """Under momentum and weight decay, in the average, and all else moves."""
    network = thin(new(), scattered(0.7))
    gone, before = every(network) == 0, every(network).clone()
    settings = {"optimizer": lessons.OPTIMIZERS[optimizer], "epochs": 1, "average": average}
    held = replace(change(lesson, **settings), constraint=zeros.Held)
    loop.fit(network, held, Run(tmp_path), "held")
    assert every(network)[gone].abs().max() == 0
    assert (every(network)[~gone] != before[~gone]).double().mean() > 0.9


def test_unheld_they_do_not_stay(lesson: Lesson, tmp_path: Path) -> None:
    network = thin(new(), scattered(0.7))
    loop.fit(network, change(lesson, epochs=1), Run(tmp_path), "free")
    assert zero_share(network) < 0.1


def test_what_is_gone_does_not_count_in_clipped_gradients(lesson: Lesson) -> None:
    network = thin(new(), scattered(0.7))
    held = zeros.Held(network)
    for weight in zeros.weights(network).values():
        weight.grad = torch.ones_like(weight)
    held.before()
    counted = sum(float(weight.grad.sum()) for weight in zeros.weights(network).values() if weight.grad is not None)
    assert counted == int((every(network) != 0).sum())
