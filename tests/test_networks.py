"""Networks are what their papers and libraries say."""

import copy
import typing

import pytest
import torch
import torchvision
from torch import nn

from stages.core import counting, params
from stages.core.datasets.storage import Facts
from stages.core.networks import attention, families
from stages.core.running.errors import Refusal

FACTS = Facts("small", ("a", "b", "c"), 16, (0.5,) * 3, (0.2,) * 3, "crop")
SMALL = params.ResidualCNN(name="residual_cnn", blocks=4, hidden_layers=1)
SETTINGS = [
    SMALL,
    params.ResidualCNN(name="residual_cnn", blocks=3, hidden_layers=0),
    params.ResNet(name="resnet18", stem="small", width=0.25),
    params.ResNet(name="resnet18", stem="imagenet", width=0.125),
    params.ResNet(name="resnet50", stem="auto", width=0.125),
    params.ResNet9(name="resnet9", width=0.125),
    params.ResNetForCIFAR(name="resnet20", width=0.5),
    params.Mobile(name="mobilenet_v2", stem="auto", width=0.25),
    params.Mobile(name="mobilenet_v3_small", stem="auto", width=0.5),
    params.ShuffleNet(name="shufflenet_v2", stem="auto", width=0.5),
    params.EfficientNet(name="efficientnet_b0", stem="auto"),
    params.ViT(name="vit_tiny", patch=0),
    params.Timm(name="timm", model="resnet10t", options={}),
    params.Torchvision(name="torchvision", model="mnasnet0_5", options={}),
    params.Ensemble(name="ensemble", members=(SMALL, params.ResNet9(name="resnet9", width=0.125))),
]


@pytest.mark.parametrize(("blocks", "expected"), [(4, 98_294), (6, 408_854), (8, 1_648_470), (10, 6_601_686)])
def test_the_residual_cnn_has_its_published_size(blocks: int, expected: int) -> None:
    """98 k and 1,648,470 at six classes are printed by the project that introduced it."""
    network = families.build(params.ResidualCNN(name="residual_cnn", blocks=blocks, hidden_layers=1), 6, 16)
    assert counting.parameters(network) == expected


PUBLISHED: list[params.Network] = [
    *(params.ResNet(name=name, stem="auto", width=1.0) for name in ("resnet18", "resnet34", "resnet50", "resnet101")),
    *(
        params.Mobile(name=name, stem="auto", width=1.0)
        for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
    ),
    *(params.ShuffleNet(name="shufflenet_v2", stem="auto", width=width) for width in families.SHUFFLENETS),
    *(
        params.EfficientNet(name=name, stem="auto")
        for name in ("efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s")
    ),
    *(
        params.Torchvision(name="torchvision", model=name, options={})
        for name in ("vit_b_16", "densenet121", "squeezenet1_1", "swin_t", "convnext_tiny")
    ),
]
PIXELS = {"efficientnet_b3": 300, "efficientnet_v2_s": 384}  # of those that were not measured at 224


@pytest.mark.slow
@pytest.mark.parametrize("settings", PUBLISHED, ids=str)
def test_sizes_are_those_that_torchvision_publishes(settings: params.Network) -> None:
    name = settings.model if isinstance(settings, params.Torchvision) else settings.name
    name = families.SHUFFLENETS[settings.width] if isinstance(settings, params.ShuffleNet) else name
    published: dict[str, float] = torchvision.models.get_model_weights(name).DEFAULT.meta  # pyright: ignore[reportAttributeAccessIssue]
    size = PIXELS.get(name, 224)
    with torch.device("meta"):
        network = families.build(settings, 1000, size)
    assert counting.parameters(network) == published["num_params"]
    assert round(counting.multiply_accumulates(network, size) / 1e9, 3) == published["_ops"]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("vit_tiny", 5_717_416, 1.25), ("vit_small", 22_050_664, 4.60), ("vit_base", 86_567_656, 17.56)],
)
def test_vision_transformers_have_the_sizes_of_their_papers(
    name: typing.Literal["vit_tiny", "vit_small", "vit_base"], parameters: int, macs: float
) -> None:
    """86,567,656 is what torchvision states of ViT-B/16; DeiT's table has 1.3, 4.6 and 17.6 billion."""
    with torch.device("meta"):
        network = families.build(params.ViT(name=name, patch=16), 1000, 224)
    assert counting.parameters(network) == parameters
    assert counting.multiply_accumulates(network, 224) / 1e9 == pytest.approx(macs, abs=0.01)


def test_resnet9_by_hand() -> None:
    """Eight 3x3 convolutions without bias, as many norms, one linear layer."""
    channels = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    expected = sum(9 * before * after + 2 * after for before, after in channels) + 512 * 10 + 10
    network = families.build(params.ResNet9(name="resnet9", width=1.0), 10, 32)
    assert counting.parameters(network) == expected == 6_573_130


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9), ("resnet110", 18)])
def test_resnets_for_cifar_by_hand(name: typing.Literal["resnet20", "resnet56", "resnet110"], blocks: int) -> None:
    """He et al. 2015, section 4.2; with shortcuts of 1x1 where channels double, 0.86 M for 56 layers."""
    stem, head = 9 * 3 * 16 + 2 * 16, 64 * 10 + 10
    pairs = {c: blocks * 2 * (9 * c * c + 2 * c) for c in (16, 32, 64)}
    doubling = {c: -9 * c * c + 9 * (c // 2) * c + (c // 2) * c + 2 * c for c in (32, 64)}
    network = families.build(params.ResNetForCIFAR(name=name, width=1.0), 10, 32)
    assert counting.parameters(network) == stem + sum(pairs.values()) + sum(doubling.values()) + head
    assert name != "resnet56" or counting.parameters(network) == 855_770
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    shortcuts = sum(getattr(module, "kernel_size", None) == (1, 1) for module in weighted)
    assert (len(weighted) - shortcuts, shortcuts) == (int(name.removeprefix("resnet")), 2)
    places = network.get_submodule("layer3").register_forward_hook(lambda *given: seen.append(given[2].shape[1:]))
    seen: list[torch.Size] = []
    network(torch.zeros(2, 3, 32, 32))
    places.remove()
    assert seen == [torch.Size([64, 8, 8])]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_a_resnet_answers_as_that_of_torchvision(
    name: typing.Literal["resnet18", "resnet34", "resnet50", "resnet101"],
) -> None:
    ours = families.build(params.ResNet(name=name, stem="imagenet", width=1.0), 10, 64).eval()
    theirs = torchvision.models.get_model(name, num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    picture = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(picture), theirs(picture))


def test_multiply_accumulates_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 8 * 8, 7))
    assert counting.multiply_accumulates(network, 8) == 8 * 8 * 5 * 3 * 9 + 5 * 8 * 8 * 7


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("classes", "size"), [(2, 8), (21, 33)])
def test_every_network_takes_any_size_and_number_of_classes(settings: params.Network, classes: int, size: int) -> None:
    network = families.build(settings, classes, size).eval()
    assert network(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if getattr(s, "stem", "") == "auto"], ids=str)
def test_the_small_stem_leaves_two_halvings_out(settings: params.Network) -> None:
    """Of a picture of 64 pixels 8 x 8 places remain, and 2 x 2 with the usual stem."""

    def places(stem: str) -> int:
        network = families.build(settings.model_copy(update={"stem": stem}), 3, 64).eval()
        sizes: list[int] = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _module, _inputs, answer: sizes.append(answer.shape[-1]))
        network(torch.zeros(1, 3, 64, 64))
        return min(size for size in sizes if size > 1)  # squeezed pictures are of one place

    assert (places("small"), places("auto"), places("imagenet")) == (8, 8, 2)


def test_a_mean_of_logits_is_what_an_ensemble_answers() -> None:
    settings = params.Ensemble(name="ensemble", members=(SMALL, SMALL, SMALL))
    network = families.build(settings, 3, 16).eval()
    picture = torch.randn(2, 3, 16, 16)
    apart = [member(picture) for member in network.get_submodule("members").children()]
    assert torch.allclose(network(picture), (apart[0] + apart[1] + apart[2]) / 3)
    assert not torch.allclose(apart[0], apart[1])
    assert families.heads(network) == ["members.0.head.4", "members.1.head.4", "members.2.head.4"]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet18x", {}, r"timm has no network 'resnet18x'; near it: .*resnet18"),
        ("resnet18", {"wings": 2}, r"timm cannot build resnet18 for 16 px with \{'wings': 2\}: .*wings"),
    ],
)
def test_what_timm_does_not_know_is_named(model: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        families.build(params.Timm(name="timm", model=model, options=dict(options)), 3, 16)


def test_options_reach_timm() -> None:
    network = families.build(params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 2}), 3, 32)
    assert len(list(network.get_submodule("blocks").children())) == 2


def small_vit(image_size: int = 32) -> torchvision.models.VisionTransformer:
    """As the library builds it; a fresh one answers nothing."""
    network = torchvision.models.VisionTransformer(image_size, 8, 3, 4, 48, 96, num_classes=5)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def test_attention_said_plainly_answers_as_it_was() -> None:
    torch.manual_seed(0)
    theirs, pictures = small_vit(), torch.randn(4, 3, 32, 32)
    ours = attention.said_plainly(copy.deepcopy(theirs))
    assert not any(isinstance(module, nn.MultiheadAttention) for module in ours.modules())
    torch.testing.assert_close(ours(pictures), theirs(pictures))
    filled = attention.said_plainly(small_vit())
    assert not torch.allclose(filled(pictures), theirs(pictures))
    filled.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(filled(pictures), theirs(pictures))


def test_what_attention_leaves_out_is_left_out_in_training_only() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 5, 8)
    theirs = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    ours = attention.Attention(theirs).eval()
    answer = ours(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(answer, theirs.eval()(tokens, tokens, tokens, need_weights=False)[0])
    assert not torch.allclose(ours.train()(tokens, tokens, tokens, need_weights=False)[0], answer)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("vit_b16", {}, r"torchvision has no classifier 'vit_b16'; near it: vit_b_16"),
        ("fcn_resnet50", {}, r"torchvision has no classifier 'fcn_resnet50'"),
        ("resnet18", {"wings": 2}, r"torchvision cannot build resnet18 for 16 px with \{'wings': 2\}: .*wings"),
        ("vit_b_32", {}, r"torchvision cannot build vit_b_32 for 16 px with \{\}: Input shape indivisible"),
    ],
)
def test_what_torchvision_does_not_know_is_named(model: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        families.build(params.Torchvision(name="torchvision", model=model, options=dict(options)), 3, 16)


def test_torchvision_is_told_the_pictures_and_the_options() -> None:
    """Its GoogLeNet would answer three times while it learns."""
    with torch.device("meta"):
        vit = families.build(params.Torchvision(name="torchvision", model="vit_b_16", options={"dropout": 0.5}), 3, 64)
    assert vit.state_dict()["encoder.pos_embedding"].shape == (1, 17, 768)
    assert all(module.p == 0.5 for module in vit.modules() if isinstance(module, nn.Dropout))
    google = families.build(params.Torchvision(name="torchvision", model="googlenet", options={}), 3, 32)
    assert google.train()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
