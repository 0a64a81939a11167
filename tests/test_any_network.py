"""Networks of every kind go the whole way: pruned, kept, quantized, kept, shipped, run as integers."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning.pruner.importance import RandomImportance
from torchvision.models.shufflenetv2 import InvertedResidual

from stages.core import counting, params, plain
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.networks.artifact import Model
from stages.core.pruning import cutting, graph
from stages.core.quantized import integers
from stages.core.quantizing import calibration
from stages.core.running.errors import Refusal
from stages.core.shipping import running, writing
from tests.lessons import shrunk

pytestmark = pytest.mark.slow

SIZE = 32
FACTS = Facts("any", ("a", "b", "c"), SIZE, (0.5,) * 3, (0.25,) * 3, "crop")


def timm(model: str, **options: bool | int | float | str) -> params.Timm:
    return params.Timm(name="timm", model=model, options=options)


SMALL_VIT = timm("vit_tiny_patch16_224", depth=2, embed_dim=48, num_heads=3, patch_size=8)
KINDS: dict[str, params.Network] = {
    "attention": SMALL_VIT,
}
SLOW: dict[str, params.Network] = {
    "depthwise, squeezed": timm("test_efficientnet"),
    "plain": timm("resnet10t"),
    "ensemble": params.Ensemble(name="ensemble", members=(params.ResNet9(name="resnet9", width=0.125), SMALL_VIT)),
    "larger, squeezed": timm("regnety_002"),
    "own linear layer": timm("mobilenetv3_small_050"),
    "table": params.Mobile(name="mobilenet_v3_small", stem="auto", width=0.5),
    "same padding": timm("tf_efficientnet_lite0"),
    "channels last": timm("convnext_atto", conv_mlp=False),
    "aggregated": timm("dla34"),
    "branches": timm("repvgg_a0"),
}
ALL = [
    *(pytest.param(network, id=name) for name, network in KINDS.items()),
    *(pytest.param(network, id=name, marks=pytest.mark.slow) for name, network in SLOW.items()),
]


def pictures(count: int, seed: int = 1) -> tuple[np.ndarray, Tensor]:
    """As they are stored, and as networks see them: noise on a colour and a slope that are each one's own."""
    generator = np.random.default_rng(seed)
    slope = np.linspace(-1, 1, SIZE)[:, None, None] * generator.uniform(-80, 80, (count, 1, 1, 3))
    colours = generator.uniform(0, 255, (count, 1, 1, 3)) + slope + generator.normal(0, 20, (count, SIZE, SIZE, 3))
    stored = colours.clip(0, 255).astype(np.uint8)
    return stored, (torch.from_numpy(stored).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25


def built(network: params.Network) -> nn.Module:
    """Its statistics moved, as by training."""
    torch.manual_seed(0)
    module = families.build(network, 3, SIZE)
    with torch.no_grad():
        for seed in range(4):
            module(pictures(8, seed)[1])
    return module.eval()


def distance(found: np.ndarray | Tensor, wanted: np.ndarray | Tensor) -> float:
    found, wanted = np.asarray(found), np.asarray(wanted)
    return float(np.abs(found - wanted).mean() / wanted.std())


RESNET9 = params.ResNet9(name="resnet9", width=0.125)
SMALLEST: list[params.Network] = [
    params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1),
    RESNET9,
    *(params.ResNet(name=n, stem="auto", width=0.125) for n in ("resnet18", "resnet34", "resnet50", "resnet101")),
    *(params.ResNetForCIFAR(name=name, width=0.5) for name in ("resnet20", "resnet56", "resnet110")),
    *(
        params.Mobile(name=n, stem="auto", width=0.25)
        for n in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
    ),
    params.ShuffleNet(name="shufflenet_v2", stem="auto", width=0.5),
    *(params.EfficientNet(name=n, stem="auto") for n in ("efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s")),
    *(params.ViT(name=name, patch=16) for name in ("vit_tiny", "vit_small", "vit_base")),
    timm("edgenext_xx_small"),
    params.Torchvision(name="torchvision", model="squeezenet1_1", options={}),
    params.Ensemble(name="ensemble", members=(RESNET9, RESNET9)),
]
BY_FAMILY = {network.name: network for network in SMALLEST}
QUICK = ("residual_cnn", "resnet9", "resnet18")
DEEPER = ("resnet101", "resnet110", "efficientnet_b3", "vit_small", "vit_base")  # another of the family is smaller


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in families.FAMILIES
        if name not in DEEPER
    ],
)
@torch.no_grad()
def test_every_family_is_pruned_kept_and_shipped(settings: params.Params, tmp_path: Path, family: str) -> None:
    """In one cut; that a wanted share is met, others show, and it takes a dozen cuts."""
    network = BY_FAMILY[family]
    dense = built(network)
    wanted = settings.prune.model_copy(update={"sparsity": 0.3, "round_to": 2})
    with torch.enable_grad():
        plan = cutting.plan(Model(dense, artifact.Card(network, FACTS)), dense, wanted, 0)
        narrow = cutting.cut(dense, 0.3, plan, {}).eval()
    assert plan.goal(narrow) > 0.05
    artifact.save_float(tmp_path / "pruned", narrow, network, FACTS)
    pruned, (stored, seen) = artifact.load(tmp_path / "pruned"), pictures(4)
    assert torch.equal(pruned.network(seen), narrow(seen))
    writing.write(pruned, tmp_path / "float.onnx", 18, {})
    assert distance(running.logits(tmp_path / "float.onnx", stored), pruned.network(seen)) < 1e-4


CUT: dict[str, params.Network] = {
    "residual": params.ResNetForCIFAR(name="resnet20", width=1.0),
    "attention": SMALL_VIT,
}
CUT_SLOWLY: dict[str, params.Network] = {
    "depthwise": params.Mobile(name="mobilenet_v2", stem="auto", width=0.25),
    "bottlenecks": params.ResNet(name="resnet50", stem="small", width=0.125),
    "grouped": timm("regnetx_002"),
    "more groups": timm("resnext50_32x4d"),
    "squeezed": params.Mobile(name="mobilenet_v3_small", stem="auto", width=0.5),
    "concatenated": params.Torchvision(name="torchvision", model="squeezenet1_1", options={}),
    "densely": params.Torchvision(name="torchvision", model="densenet121", options={}),
    "aggregated": timm("dla46_c"),
    "shuffled": params.ShuffleNet(name="shufflenet_v2", stem="auto", width=0.5),
    "split": timm("edgenext_xx_small"),
}


@pytest.mark.parametrize(
    "network",
    [
        *(pytest.param(network, id=name) for name, network in CUT.items()),
        *(pytest.param(network, id=name, marks=pytest.mark.slow) for name, network in CUT_SLOWLY.items()),
    ],
)
def test_what_is_left_answers_as_the_whole_one_with_the_rest_silent(
    settings: params.Params, network: params.Network
) -> None:
    """Numbers in the place of weights tell which of them stay; chance decides alike for weights and numbers."""
    chance = params.Random(name="random")
    wanted = settings.prune.model_copy(update={"importance": chance, "round_to": 1, "attention": "kept"})
    dense = moved(built(network))
    plan = cutting.plan(Model(dense, artifact.Card(network, FACTS)), dense, wanted, 0)
    narrow = cutting.cut(dense, 0.4, plan, {})
    places = cutting.cut(numbered(dense), 0.4, plan, {}).state_dict()
    silent = copy.deepcopy(dense)
    whole, left = silent.state_dict(), narrow.state_dict()
    for name, tensor in whole.items():
        stay = places[name].flatten().round().long()
        assert torch.equal(left[name].flatten(), tensor.flatten()[stay])
        rest = torch.ones(tensor.numel(), dtype=torch.bool)
        rest[stay] = False
        tensor.view(-1)[rest] = 0
    assert counting.parameters(narrow) < 0.95 * counting.parameters(dense)
    seen = pictures(4)[1].double()
    with torch.no_grad():
        found, expected, before = (one.double().eval()(seen) for one in (narrow, silent, dense))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    assert distance(found, before) > 0.01


@torch.no_grad()
def moved(network: nn.Module) -> nn.Module:
    """No scale is zero, as that of a fresh block may be, and no statistics are of scales that were."""
    for parameter in network.parameters():
        if parameter.ndim < 2:
            parameter.uniform_(0.5, 1.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(pictures(16)[1])
    return network.eval()


@torch.no_grad()
def numbered(network: nn.Module) -> nn.Module:
    """Each tensor says at each place which place it is; below 2 ** 24, where floats are exact."""
    network = copy.deepcopy(network)
    for tensor in network.state_dict().values():
        assert tensor.numel() < 2**24
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    return network


@pytest.mark.parametrize("network", ALL)
@torch.no_grad()
def test_any_network_goes_the_whole_way(settings: params.Params, tmp_path: Path, network: params.Network) -> None:
    dense = built(network)
    stored, seen = pictures(8)
    wanted = settings.prune.model_copy(update={"sparsity": 0.3, "round_to": 2})
    with torch.enable_grad():
        narrow = shrunk(Model(dense, artifact.Card(network, FACTS)), wanted).eval()
    assert 1 - counting.parameters(narrow) / counting.parameters(dense) == pytest.approx(0.3, abs=0.02)
    narrow.train()(seen)  # its statistics follow, as by recalibration
    narrow.eval()
    artifact.save_float(tmp_path / "pruned", narrow, network, FACTS)
    pruned = artifact.load(tmp_path / "pruned")
    for count in (1, 2, 5):
        assert torch.equal(pruned.network(seen[:count]), narrow(seen[:count]))

    method = settings.quantize.method
    assert isinstance(method, params.Integer)
    made = calibration.calibrate(artifact.load(tmp_path / "pruned").network, method, [seen], seed=0)
    card = dataclasses.replace(pruned.card, quantization=method, bits=made.weights, flows=made.flows)
    integers.save(tmp_path / "quantized", made.network, card)
    integer = integers.load(tmp_path / "quantized")
    assert distance(integer.network(seen), pruned.network(seen)) < 0.3
    assert torch.equal(integer.network(seen), made.network(seen))

    expected = {name: model.network(seen).numpy() for name, model in (("float", pruned), ("int8", integer))}
    writing.write(pruned, tmp_path / "float.onnx", 18, {})
    writing.write(integer, tmp_path / "int8.onnx", 18, {})
    assert distance(running.logits(tmp_path / "float.onnx", stored), expected["float"]) < 1e-4
    assert distance(running.logits(tmp_path / "int8.onnx", stored), expected["int8"]) < 0.2
    layers = len(integers.levels(integers.load(tmp_path / "quantized").network))
    kernels = running.kernels(tmp_path / "int8.onnx")
    assert (kernels["integer_kernels"], kernels["float_kernels"]) == (layers, 0)
    assert running.tensor_bytes(tmp_path / "int8.onnx") < 0.4 * running.tensor_bytes(tmp_path / "float.onnx")


def test_what_has_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    """Pooling to seven places out of two, say."""

    class Odd(nn.Sequential):
        pass

    odd = Odd(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(3 * 49, 3))
    reason = r"^Odd for 32 px has no ONNX file \(Unsupported: ONNX export of operator adaptive_avg_pool2d[^\n]+$"
    with pytest.raises(Refusal, match=reason):
        writing.write(Model(odd, artifact.Card(SMALL_VIT, FACTS)), tmp_path / "odd.onnx", 18, {})
    assert not list(tmp_path.iterdir())


def test_products_of_activations_are_counted_by_themselves(tmp_path: Path) -> None:
    """Each of two blocks multiplies queries by keys, and weights by values."""
    card = artifact.Card(SMALL_VIT, FACTS)
    writing.write(Model(built(SMALL_VIT), card), tmp_path / "float.onnx", 18, {})
    assert running.kernels(tmp_path / "float.onnx") == {
        "integer_kernels": 0,
        "float_kernels": 10,
        "activation_kernels": 4,
    }


def test_what_cannot_be_pruned_is_refused_in_one_line(settings: params.Params) -> None:
    """GroupNorm looks at all channels there are: none of them is silent to the others."""
    middle = [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8)]
    network = nn.Sequential(*middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(Refusal, match=r"^50\.0% of this network's parameters cannot be pruned, 0\.0% comes nearest"):
        shrunk(Model(network, artifact.Card(SMALL_VIT, FACTS)), settings.prune)


def test_channels_stay_where_removing_is_not_silencing() -> None:
    """Rows of queries, keys and values are cut by code that counts them; the embedding is normalised as a whole."""
    kept = graph.unprunable(built(SMALL_VIT), SIZE, 0)
    assert {"head", "blocks.0.attn.qkv", "blocks.1.attn.qkv"} < set(kept)
    assert not any("mlp.fc1" in name for name in kept)


def test_around_code_that_is_not_understood_channels_of_plain_layers_go() -> None:
    """Where channels are shuffled only the branches' inner ones are one layer's own; behind it all is as ever."""
    shuffled = nn.Sequential(*(InvertedResidual(8, 8, stride) for stride in (2, 1, 1)))
    behind = [nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    network = nn.Sequential(nn.Conv2d(3, 8, 1), shuffled, *behind)
    with pytest.raises(ZeroDivisionError):
        DependencyGraph().build_dependency(network, torch.zeros(2, 3, 8, 8))
    ends = {"0", "1.0.branch1.0", "1.0.branch1.2", *(f"1.{number}.branch2.5" for number in range(3))}
    assert set(graph.unprunable(network, 8, 0)) == ends | {"6"}


def test_a_pruner_keeps_no_network_of_another() -> None:
    """torch-pruning's own tables of grouped layers are one for all."""
    first = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(8 * 16, 3))
    graph.pruner_of(first, 4, ["3"], importance=RandomImportance())
    second = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 3))
    pruner = graph.pruner_of(second, 4, ["2"], importance=RandomImportance())
    assert not pruner.in_channel_groups
    assert not pruner.out_channel_groups


class Twice(nn.Module):
    """One convolution is read by a normalisation and by code, the other is changed in place before it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.other, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU()
        self.norm.running_mean += 1  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y + self.relu(self.other(x).add_(1))


def test_merging_that_changes_answers_is_refused() -> None:
    example = torch.randn(1, 3, 4, 4)
    assert plain.watch(Twice(), example).readers == {"conv": "norm"}
    with pytest.raises(Refusal, match="Twice answers otherwise once its BatchNorm is merged"):
        plain.merge(Twice().eval(), example)
