"""What an optimizer moves, and what it lets decay."""

import pytest
import torch
from torch import nn

from stages.core import params
from stages.core.networks import families
from stages.core.objectives import building
from stages.core.training import optimizers
from tests.lessons import OPTIMIZERS, SMALL, new

ALONE = building.labels_alone()


def test_norms_and_biases_do_not_decay() -> None:
    network = families.build(SMALL, 3, 8)
    decaying, still = optimizers.build(
        params.AdamW(name="adamw", rate=0.1, weight_decay=0.1), network, ALONE
    ).param_groups
    assert {weight.ndim for weight in decaying["params"]} == {2, 4}
    assert still["weight_decay"] == 0
    assert {weight.ndim for weight in still["params"]} == {1}
    assert len(decaying["params"]) + len(still["params"]) == len(list(network.parameters()))


def test_what_a_network_says_of_itself_does_not_decay() -> None:
    vit = params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 1, "patch_size": 4})
    network = families.build(vit, 3, 8)
    decaying, _ = optimizers.build(
        params.SGD(name="sgd", rate=0.1, momentum=0.9, weight_decay=0.1), network, ALONE
    ).param_groups
    names = {id(weight): name for name, weight in network.named_parameters()}
    told = {names[id(weight)] for weight in decaying["params"]}
    assert told == {name for name, weight in network.named_parameters() if weight.ndim > 1} - {"pos_embed", "cls_token"}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_peer_decays_as_the_student_does(name: str) -> None:
    vit = params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 1, "patch_size": 4})
    network, peer = (families.build(vit, 3, 8) for _ in range(2))
    objective = building.Mutual.__new__(building.Mutual)
    nn.Module.__init__(objective)
    objective.peer = peer
    groups = optimizers.build(OPTIMIZERS[name], network, objective).param_groups
    decay = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in groups) == 2 * len(list(network.parameters()))
    for one, other in zip(network.parameters(), peer.parameters(), strict=True):
        assert decay[id(one)] == decay[id(other)]


def test_muon_moves_hidden_weights_and_adamw_the_rest() -> None:
    network = new()
    hidden, *others = optimizers.build(OPTIMIZERS["muon"], network, ALONE).param_groups
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
    optimizer = optimizers.build(params.SGD(name="sgd", rate=0.1, momentum=0.5, weight_decay=0.0), network, ALONE)
    for gradient in (1.0, 2.0):
        network.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
    first = 1.0 - 0.1 * (1.0 + 0.5 * 1.0)
    assert network.weight.item() == pytest.approx(first - 0.1 * (2.0 + 0.5 * (0.5 * 1.0 + 2.0)))
