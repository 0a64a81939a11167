"""A model is data: a folder with model.json (what it is) and weights.safetensors (what it learnt). Never a pickle."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stages.core import params
from stages.core.datasets.storage import Facts
from stages.core.networks import families, widths
from stages.core.networks.widths import Widths
from stages.core.running import files
from stages.core.running.errors import Refusal

SCHEMA = 3
ABSENT = "absent.json"
SAME = 1e-3  # of the largest answer
QUANTIZATION = TypeAdapter[params.Quantization](params.Quantization)


@dataclass(frozen=True)
class Card:
    """All that is needed to build the module and to feed it.

    `bits` are those of the weights of integer layers, `flows` those of what flows between them. `parents` are digests
    of the models it came from, `origin` says what weights it began with, if not with random ones.
    """

    architecture: params.Network
    facts: Facts
    widths: Widths = field(default_factory=dict)
    quantization: params.Quantization | None = None
    bits: dict[str, params.WeightBits] = field(default_factory=dict)
    flows: dict[str, int] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    network: nn.Module
    card: Card


def save(folder: Path, state: Mapping[str, Tensor], card: Card) -> None:
    folder.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, folder / "weights.safetensors")
    content = dataclasses.asdict(card) | {
        "architecture": card.architecture.model_dump(mode="json"),
        "quantization": card.quantization.model_dump(mode="json") if card.quantization else None,
        "schema": SCHEMA,
        "weights_sha256": files.digest(folder / "weights.safetensors"),
    }
    files.write_json(folder / "model.json", content)


def save_float(
    folder: Path,
    network: nn.Module,
    settings: params.Network,
    facts: Facts,
    origin: Mapping[str, str] | None = None,
    **parents: Path,
) -> None:
    """A network in floating point; if it was pruned, the widths tell it. What is saved is proved to be all of it."""
    digests = {name: files.digest(path) for name, path in parents.items()}
    card = dataclasses.replace(card_of(network, settings, facts), parents=digests, origin=dict(origin or {}))
    _refuse_other_answers(network, card)
    save(folder, network.state_dict(), card)


def card_of(network: nn.Module, settings: params.Network, facts: Facts) -> Card:
    return Card(
        settings, facts, widths.difference(network, families.build(settings, len(facts.classes), facts.image_size))
    )


@torch.no_grad()
def _refuse_other_answers(network: nn.Module, card: Card) -> None:
    """Code may hold numbers that are neither widths nor weights."""
    device, size = next(network.parameters()).device, card.facts.image_size
    rebuilt = build(card).to(device)
    rebuilt.load_state_dict(network.state_dict())
    picture = torch.linspace(-2, 2, 2 * 3 * size**2, device=device).view(2, 3, size, size)
    answers = [copy.deepcopy(one).eval()(picture) for one in (network, rebuilt)]
    if not torch.allclose(*answers, rtol=SAME, atol=SAME * float(answers[0].abs().max()), equal_nan=True):
        raise Refusal(
            f"{type(network).__name__} answers otherwise once it is built anew from its settings, widths and weights: "
            "its code keeps something else, and it cannot be saved; take another network"
        )


def leave_out(folder: Path, reason: str) -> None:
    """In the place of a model that nobody wanted: stages read the reason there."""
    files.write_json(folder / ABSENT, {"reason": reason})


def absent(folder: Path) -> str | None:
    """Why there is no model in this folder, if that is meant so."""
    return files.read_json(folder / ABSENT)["reason"] if (folder / ABSENT).is_file() else None


def load(folder: Path) -> Model:
    card = read_card(folder)
    if card.quantization:
        raise Refusal(f"{folder} is quantized; a network in floating point is needed here")
    network = build(card)
    fill(network, read_weights(folder), folder)
    return Model(network.eval(), card)


def build(card: Card) -> nn.Module:
    """The module the card describes, in floating point, not yet filled."""
    network = families.build(card.architecture, len(card.facts.classes), card.facts.image_size)
    widths.apply(network, card.widths)
    return network


def begin(card: Card) -> nn.Module:
    """The module the card describes, as it would begin: the random weights of a whole one, cut to its widths."""
    narrow, whole = build(card), families.build(card.architecture, len(card.facts.classes), card.facts.image_size)
    random, cut = whole.state_dict(), narrow.state_dict()
    for name, tensor in cut.items():
        cut[name] = random[name][tuple(map(slice, tensor.shape))].clone()
    narrow.load_state_dict(cut)
    return narrow


def fill(network: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Strictly: a missing, surplus or misshapen weight is an error.

    Files do not hold the versions of modules, which are this code's own; some modules refuse to guess them.
    """
    versioned = network.state_dict()
    versioned.clear()
    versioned |= state
    try:
        network.load_state_dict(versioned, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise Refusal(f"{folder}: the weights are of another architecture than model.json says: {reason}") from error


def read_card(folder: Path) -> Card:
    path = folder / "model.json"
    if not path.is_file():
        raise Refusal(f"{folder} is not a model: it has no model.json")
    try:
        content: dict[str, Any] = files.read_json(path)
        if content["schema"] != SCHEMA:
            raise Refusal(f"{path} has schema {content['schema']}, this version reads {SCHEMA}")
        return Card(
            architecture=TypeAdapter(params.Network).validate_python(content["architecture"]),
            facts=Facts.read(content["facts"]),
            widths={
                name: {key: tuple(value) for key, value in width.items()} for name, width in content["widths"].items()
            },
            quantization=content["quantization"] and QUANTIZATION.validate_python(content["quantization"]),
            bits=content["bits"],
            flows=content["flows"],
            parents=content["parents"],
            origin=content["origin"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise Refusal(f"{path} cannot be read as a model's card: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise Refusal(f"{folder} is not a model: it has no weights.safetensors")
    if files.digest(path) != files.read_json(folder / "model.json")["weights_sha256"]:
        raise Refusal(f"{path} is not the file that model.json was written with")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise Refusal(f"{path} cannot be read: {error}") from error
