"""What a network begins with: random weights, published ones, or those of a file. Only its last layer may be new."""

import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.core import params
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.running import files, progress
from stages.core.running.errors import Refusal

TORCHVISION = params.ResNet | params.Mobile | params.ShuffleNet | params.EfficientNet | params.Torchvision
TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Start:
    network: nn.Module
    origin: dict[str, str] = field(default_factory=dict)


def start(network: params.Network, weights: params.Weights, facts: Facts, home: Path) -> Start:
    """`home` is where downloads lie; what could not be loaded but for the last layer is refused."""
    built = families.build(network, len(facts.classes), facts.image_size)
    _try(built, network, facts.image_size)
    if weights.name == "none":
        return Start(built)
    path = Path(weights.path) if isinstance(weights, params.File) else _published(network, home)
    replaced = put(built, read(path, built), path)
    origin = {"weights": path.name, "sha256": files.digest(path), "new": ", ".join(replaced)}
    progress.note(f"weights of {path}: all" + (f" but {origin['new']}, which begin anew" if replaced else ""))
    return Start(built, origin)


def refuse_untrained(start: Start) -> None:
    if start.origin.get("new"):
        raise Refusal(
            f"learn: nothing keeps {start.origin['new']} random, since {start.origin['weights']} has no such layer for "
            "these classes: set learn to head or all"
        )


def freeze(network: nn.Module) -> None:
    """All but the last layer."""
    kept = tuple(f"{head}." for head in families.heads(network))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(kept))


def put(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> list[str]:
    """Fill the network, strictly; gives the names of what did not fit in its last layer and is new."""
    own = network.state_dict()
    head = tuple(f"{name}." for name in families.heads(network))
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    replaced = [name for name in own if name.startswith(head) and name not in fitting]
    counts = [
        name for name in own if name.endswith("num_batches_tracked")
    ]  # files of old lack them; nothing needs them
    wrong = [name for name in own if name not in fitting and name not in (*replaced, *counts)]
    wrong += [name for name in state if name not in own and not name.startswith(head)]
    if wrong:
        listed = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise Refusal(f"{path} holds the weights of another network: {listed} differ in name or shape")
    own |= fitting
    network.load_state_dict(own)
    return replaced


def read(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """The weights in a file or a model's folder, under the names that the network has for them."""
    if path.is_dir():
        return artifact.read_weights(path)
    if not path.is_file():
        raise Refusal(f"{path} is not there: a file of weights or a model's folder is asked for")
    if path.suffix == ".npz":
        return _of_jax(path, network)
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except (SafetensorError, RuntimeError, UnpicklingError, EOFError) as error:
        raise Refusal(f"{path} cannot be read as weights: {error}") from error
    for wrapper in ("state_dict", "model"):
        found = found.get(wrapper, found)
    versions: Mapping[str, Any] = getattr(found, "_metadata", {})
    if not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise Refusal(f"{path} holds more than weights: save the state_dict alone")
    state = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    library = sys.modules[type(network).__module__]
    rename: Callable[..., dict[str, Tensor]] | None = getattr(library, "checkpoint_filter_fn", None)
    if rename:
        return rename(state, network)
    try:
        state = _as_modules_name_them(state, network, versions)
    except ValueError as error:
        raise Refusal(f"{path} does not say by which version of the network it was written: {error}") from error
    resample: Callable[..., dict[str, Tensor]] | None = getattr(library, "interpolate_embeddings", None)
    return resample(network.image_size, network.patch_size, state) if resample else state


def _as_modules_name_them(
    state: dict[str, Tensor], network: nn.Module, versions: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Whoever renamed a part of a module since files were written says so where that module is filled."""
    named, twin = dict(state), copy.deepcopy(network)
    for name, module in twin.named_modules():
        module._load_from_state_dict(named, f"{name}." if name else "", versions.get(name, {}), False, [], [], [])
    return named


def _unpickled(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _of_jax(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """As the first vision transformers were published; timm knows how to read them."""
    load: Callable[[str], None] | None = getattr(network, "load_pretrained", None)
    if load is None:
        raise Refusal(f"{path}: an .npz can only be read into a vision transformer of timm")
    load(str(path))
    return network.state_dict()


def _published(network: params.Network, home: Path) -> Path:
    if isinstance(network, params.ViT):
        return _of_timm(families.VITS[network.name], home)
    if isinstance(network, params.Timm):
        return _of_timm(network.model, home)
    if not isinstance(network, TORCHVISION):
        raise Refusal(f"nobody published ImageNet weights of {network.name}: set weights to none or to a file")
    from torchvision import models

    if getattr(network, "width", 1.0) != 1.0 and not isinstance(network, params.ShuffleNet):
        raise Refusal(f"ImageNet weights of {network.name} have width 1.0, not {getattr(network, 'width', None)}")
    name = network.model if isinstance(network, params.Torchvision) else network.name
    name = families.SHUFFLENETS[network.width] if isinstance(network, params.ShuffleNet) else name
    return _fetched(models.get_model_weights(name).DEFAULT.url, home)  # pyright: ignore[reportAttributeAccessIssue]


def _of_timm(name: str, home: Path) -> Path:
    import timm

    told = timm.get_pretrained_cfg(name)
    if told is None or not told.has_weights:
        raise Refusal(f"timm has no weights for {name}: set weights to none or to a file")
    if not told.hf_hub_id:
        return _fetched(str(told.url), home)
    file = told.hf_hub_filename or "model.safetensors"
    url = f"https://huggingface.co/{told.hf_hub_id}/resolve/main/{file}"
    return _fetched(url, home, f"{told.architecture}.{told.tag or 'default'}{Path(file).suffix}")


def _fetched(url: str, home: Path, name: str = "") -> Path:
    """Once; torchvision's files carry the start of their digest in their names, which is checked."""
    import pooch
    import requests

    path = home / "weights" / (name or Path(urlsplit(url).path).name)
    if path.is_file():
        return path
    partial = path.with_name(path.name + ".partial")
    try:
        with progress.download(path.name) as bar:
            downloader: Any = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT)  # pyright: ignore[reportArgumentType]
            pooch.retrieve(url, None, partial.name, partial.parent, downloader=downloader)
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else f"status {error.response.status_code}"
        raise Refusal(
            f"{path} is not there and {url} cannot be fetched ({reason}): fetch it elsewhere and put it there"
        ) from error
    wanted = path.stem.rpartition("-")[2] if not name else ""
    if wanted and not files.digest(partial).startswith(wanted):
        partial.unlink()
        raise Refusal(f"{url} gave another file than the one published (sha256 {wanted}...)")
    partial.replace(path)
    return path


def _try(built: nn.Module, network: params.Network, image_size: int) -> None:
    """Too small a picture is found out here, and not in the middle of a stage."""
    modes = {module: module.training for module in built.modules()}
    try:
        with torch.no_grad():
            built.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise Refusal(f"{network.name} does not take pictures of {image_size} px: {error}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
