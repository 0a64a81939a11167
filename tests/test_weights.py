"""What a network begins with: everything in the file but a last layer of other classes, or nothing at all."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from stages.core import params, weights
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, attention, families
from stages.core.running import files
from stages.core.running.errors import Refusal

FACTS = Facts("small", ("a", "b", "c"), 32, (0.5,) * 3, (0.2,) * 3, "crop")
SMALL = params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1)
IMAGENET = params.ImageNet(name="imagenet")
RESNET = params.ResNet(name="resnet18", stem="imagenet", width=1.0)
VIT = params.ViT(name="vit_tiny", patch=16)


def of(path: Path) -> params.File:
    return params.File(name="file", path=str(path))


def of_torchvision(classes: int) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return torchvision.models.resnet18(num_classes=classes).state_dict()


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped", "parallel", "model"])
def test_a_file_of_any_kind_fills_all_but_the_last_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    state, path = of_torchvision(1000), tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif kind == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    elif kind == "model":
        path = tmp_path / "model"
        artifact.save(path, state, artifact.Card(RESNET, FACTS))
    else:
        torch.save(state, path)
    begun = weights.start(RESNET, of(path), FACTS, tmp_path)
    found = begun.network.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in found if not name.startswith("fc."))
    assert found["fc.weight"].shape == (3, 512)
    assert begun.origin == {"weights": path.name, "sha256": files.digest(path), "new": "fc.weight, fc.bias"}
    assert "all but fc.weight, fc.bias, which begin anew" in capsys.readouterr().out


def test_a_last_layer_of_as_many_classes_is_taken_too(tmp_path: Path) -> None:
    state = of_torchvision(3)
    save_file(state, tmp_path / "w.safetensors")
    begun = weights.start(RESNET, of(tmp_path / "w.safetensors"), FACTS, tmp_path)
    assert torch.equal(begun.network.state_dict()["fc.weight"], state["fc.weight"])
    assert begun.origin["new"] == ""
    weights.refuse_untrained(begun)


def test_a_random_last_layer_is_not_evaluated(tmp_path: Path) -> None:
    save_file(of_torchvision(7), tmp_path / "w.safetensors")
    with pytest.raises(Refusal, match=r"learn: nothing keeps fc\.weight, fc\.bias random"):
        weights.refuse_untrained(weights.start(RESNET, of(tmp_path / "w.safetensors"), FACTS, tmp_path))


@pytest.mark.parametrize("change", ["missing", "surplus", "misshapen", "another"])
def test_anything_else_that_differs_is_refused(tmp_path: Path, change: str) -> None:
    state = of_torchvision(3)
    if change == "missing":
        del state["layer1.0.conv1.weight"]
    elif change == "surplus":
        state["layer1.0.conv9.weight"] = torch.zeros(1)
    elif change == "misshapen":
        state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    else:
        state = torchvision.models.resnet34(num_classes=3).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(Refusal, match=r"holds the weights of another network: layer1\.\d\.\w+"):
        weights.start(RESNET, of(tmp_path / "w.safetensors"), FACTS, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"no weights", "cannot be read as weights"),
        ("w.pth", b"no weights", "cannot be read as weights"),
        ("w.pth", None, "is not there"),
        ("w.npz", b"x", "only be read into a vision transformer"),
    ],
)
def test_what_is_no_file_of_weights_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal, match=message):
        weights.start(RESNET, of(tmp_path / name), FACTS, tmp_path)


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "evil",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(Refusal, match="cannot be read as weights"):
        weights.start(RESNET, of(tmp_path / "w.pth"), FACTS, tmp_path)
    assert not (tmp_path / "evil").exists()


def test_positions_of_a_vision_transformer_fit_other_pictures(tmp_path: Path) -> None:
    """timm's own filter resamples them: 14 x 14 places become 2 x 2."""
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    begun = weights.start(VIT, of(tmp_path / "w.safetensors"), FACTS, tmp_path)
    assert begun.network.state_dict()["pos_embed"].shape == (1, 5, 192)
    assert torch.equal(
        begun.network.state_dict()["blocks.3.attn.qkv.weight"], theirs.state_dict()["blocks.3.attn.qkv.weight"]
    )
    assert begun.origin["new"] == "head.weight, head.bias"


@pytest.mark.parametrize(
    ("network", "file"),
    [
        (RESNET, r"weights/resnet18-f37072fd\.pth is not there and https://download\.pytorch\.org/models/"),
        (
            VIT,
            r"weights/vit_tiny_patch16_224\.augreg_in21k_ft_in1k\.\w+ is not there and https://huggingface\.co/timm/",
        ),
        (
            params.Timm(name="timm", model="resnet10t", options={}),
            r"weights/resnet10t\.\w+\.\w+ is not there and https://",
        ),
        (
            params.Torchvision(name="torchvision", model="squeezenet1_1", options={}),
            r"weights/squeezenet1_1-\w+\.pth is not there and https://download\.pytorch\.org/models/",
        ),
    ],
    ids=["torchvision", "vit", "timm", "any of torchvision"],
)
def test_offline_the_file_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: params.Member, file: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(Refusal, match=rf"{file}.*fetch it elsewhere and put it there"):
        weights.start(network, IMAGENET, FACTS, tmp_path)
    assert not list(tmp_path.rglob("*.p*"))


def test_a_published_file_that_was_put_there_is_used(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    state = of_torchvision(1000)
    torch.save(state, tmp_path / "weights/resnet18-f37072fd.pth")
    begun = weights.start(RESNET, IMAGENET, FACTS, tmp_path)
    assert torch.equal(begun.network.state_dict()["conv1.weight"], state["conv1.weight"])


def test_vision_transformers_of_torchvision_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Attention under its own names, layers of the MLP under those of old, positions of more places."""
    torch.manual_seed(2)
    theirs = torchvision.models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=5)
    state = theirs.state_dict()
    for name in [name for name in state if ".mlp." in name]:
        state[name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")] = state.pop(name)
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in state
    assert "encoder.layers.encoder_layer_1.self_attention.in_proj_weight" in state
    del vars(state)["_metadata"]
    torch.save(state, tmp_path / "w.pth")
    small = attention.said_plainly(torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=3))
    path = tmp_path / "w.pth"
    assert weights.put(small, weights.read(path, small), path) == ["heads.head.weight", "heads.head.bias"]
    same = attention.said_plainly(torchvision.models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=5))
    assert weights.put(same, weights.read(path, same), path) == []
    pictures = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(same.eval()(pictures), theirs.eval()(pictures))
    assert torch.equal(small.state_dict()["encoder.ln.weight"], theirs.state_dict()["encoder.ln.weight"])
    places = "encoder.pos_embedding"
    assert torch.equal(small.state_dict()[places][:, 0], theirs.state_dict()[places][:, 0])


def test_versions_of_modules_are_read_from_their_file(tmp_path: Path) -> None:
    network = params.Torchvision(name="torchvision", model="mnasnet0_5", options={})
    state = torchvision.models.mnasnet0_5(num_classes=3).state_dict()
    torch.save(state, tmp_path / "w.pth")
    begun = weights.start(network, of(tmp_path / "w.pth"), FACTS, tmp_path)
    assert torch.equal(begun.network.state_dict()["layers.0.weight"], state["layers.0.weight"])
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(Refusal, match="does not say by which version of the network it was written"):
        weights.start(network, of(tmp_path / "w.safetensors"), FACTS, tmp_path)


def test_a_stem_or_width_that_nobody_trained_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    torch.save(of_torchvision(1000), tmp_path / "weights/resnet18-f37072fd.pth")
    with pytest.raises(Refusal, match=r"another network: conv1\.weight"):
        weights.start(RESNET.model_copy(update={"stem": "small"}), IMAGENET, FACTS, tmp_path)
    with pytest.raises(Refusal, match=r"have width 1\.0, not 0\.5"):
        weights.start(RESNET.model_copy(update={"width": 0.5}), IMAGENET, FACTS, tmp_path)
    for network in (SMALL, params.ResNetForCIFAR(name="resnet20", width=1.0)):
        with pytest.raises(Refusal, match=f"nobody published ImageNet weights of {network.name}"):
            weights.start(network, IMAGENET, FACTS, tmp_path)


def test_a_picture_too_small_for_a_network_is_refused(tmp_path: Path) -> None:
    network = params.Timm(name="timm", model="convnext_atto", options={})
    with pytest.raises(Refusal, match="timm does not take pictures of 16 px"):
        weights.start(
            network, params.Scratch(name="none"), Facts("x", ("a", "b"), 16, (0.5,) * 3, (0.2,) * 3, "crop"), tmp_path
        )


def test_the_first_vision_transformers_are_read_from_their_own_format(tmp_path: Path) -> None:
    """A network's weights under the names and in the order of Google's files, written by hand."""
    network = params.Timm(name="timm", model="vit_tiny_patch16_224", options={"depth": 1})
    torch.manual_seed(1)
    source = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3, img_size=32)
    state = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    block, heads = "Transformer/encoderblock_0/", 3
    content = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for number, norm in enumerate(("norm1", "norm2")):
        for theirs, ours in (("scale", "weight"), ("bias", "bias")):
            content[f"{block}LayerNorm_{2 * number}/{theirs}"] = state[f"blocks.0.{norm}.{ours}"]
    attention = f"{block}MultiHeadDotProductAttention_1/"
    for name, weight, bias in zip(
        ("query", "key", "value"),
        np.split(state["blocks.0.attn.qkv.weight"], 3),
        np.split(state["blocks.0.attn.qkv.bias"], 3),
        strict=True,
    ):
        content[f"{attention}{name}/kernel"] = weight.T.reshape(192, heads, 64)
        content[f"{attention}{name}/bias"] = bias.reshape(heads, 64)
    content[f"{attention}out/kernel"] = state["blocks.0.attn.proj.weight"].T.reshape(heads, 64, 192)
    content[f"{attention}out/bias"] = state["blocks.0.attn.proj.bias"]
    for number in (0, 1):
        content[f"{block}MlpBlock_3/Dense_{number}/kernel"] = state[f"blocks.0.mlp.fc{number + 1}.weight"].T
        content[f"{block}MlpBlock_3/Dense_{number}/bias"] = state[f"blocks.0.mlp.fc{number + 1}.bias"]
    np.savez(tmp_path / "w.npz", **content)
    begun = weights.start(network, of(tmp_path / "w.npz"), FACTS, tmp_path)
    picture = torch.randn(2, 3, 32, 32)
    assert torch.allclose(begun.network.eval()(picture), source.eval()(picture), atol=1e-6)
    assert families.heads(begun.network) == ["head"]
