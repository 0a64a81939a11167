"""Networks of every kind go the whole way: pruned, kept, quantized, kept, shipped, run as integers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.core import counting, params, plain, quantization
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.networks.artifact import Model
from stages.core.pruning import graph
from stages.core.running.errors import Refusal
from stages.core.shipping import running, writing
from tests.lessons import shrunk

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

    calibrated = quantization.calibrate(artifact.load(tmp_path / "pruned").network, settings.quantize.method, [seen])
    card = dataclasses.replace(pruned.card, quantization=settings.quantize.method)
    quantization.save(tmp_path / "quantized", calibrated, card)
    integer = quantization.load(tmp_path / "quantized")
    assert distance(integer.network(seen), pruned.network(seen)) < 0.3
    assert torch.equal(integer.network(seen), calibrated(seen))

    expected = {name: model.network(seen).numpy() for name, model in (("float", pruned), ("int8", integer))}
    writing.write(pruned, tmp_path / "float.onnx", 18, {})
    writing.write(integer, tmp_path / "int8.onnx", 18, {})
    assert distance(running.logits(tmp_path / "float.onnx", stored), expected["float"]) < 1e-4
    assert distance(running.logits(tmp_path / "int8.onnx", stored), expected["int8"]) < 0.2
    layers = len(quantization.levels(quantization.load(tmp_path / "quantized").network))
    kernels = running.kernels(tmp_path / "int8.onnx")
    assert (kernels["integer_kernels"], kernels["float_kernels"]) == (layers, 0)
    assert running.tensor_bytes(tmp_path / "int8.onnx") < 0.4 * running.tensor_bytes(tmp_path / "float.onnx")


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
    shuffled = families.build(params.ShuffleNet(name="shufflenet_v2", stem="auto", width=0.5), 3, SIZE)
    with pytest.raises(Refusal, match=r"^torch-pruning cannot prune ShuffleNetV2 \(ZeroDivisionError: [^\n]+$"):
        shrunk(Model(shuffled, artifact.Card(SMALL_VIT, FACTS)), settings.prune)


def test_channels_stay_where_removing_is_not_silencing() -> None:
    """Rows of queries, keys and values are cut by code that counts them; the embedding is normalised as a whole."""
    kept = graph.unprunable(built(SMALL_VIT), SIZE, 0)
    assert {"head", "blocks.0.attn.qkv", "blocks.1.attn.qkv"} < set(kept)
    assert not any("mlp.fc1" in name for name in kept)


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
