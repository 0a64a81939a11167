"""From the teacher to the file: who was made from whom, by digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.lineage import PARENTS
from stages.core.reporting import findings
from stages.core.reporting.findings import SHIPPED, Model
from stages.core.running import files
from stages.core.running.errors import Refusal

SHORT = 12


@dataclass(frozen=True)
class Link:
    name: str
    digest: str
    detail: str


@dataclass(frozen=True)
class Pedigree:
    models: dict[str, Model]
    chain: list[Link]


def read(folders: dict[str, Path], file: Path) -> Pedigree:
    """The models' cards; a model that was made from another parent than the one at hand has no place on the page."""
    models = {name: findings.read(folder / "model.json", Model) for name, folder in folders.items()}
    digests = {name: files.digest(folder) for name, folder in folders.items()}
    for name, parent in PARENTS.items():
        if models[name].parents.get(parent) != digests[parent]:
            raise Refusal(f"{folders[name]} was not made from {folders[parent]}: `dvc repro` rebuilds it")
    links = [Link(name, digests[name][:SHORT], describe(models[name])) for name in SHIPPED]
    return Pedigree(models, [*links, Link(file.name, files.digest(file)[:SHORT], "the file that is shipped")])


def describe(model: Model) -> str:
    """As a person would say it: residual_cnn: blocks 6, hidden_layers 1."""
    text = _said(model.quantization or model.architecture)
    begun = model.origin.get("weights", "")
    return f"{text}; begun with {begun}" if begun and not model.quantization else text


def _said(method: Mapping[str, Any]) -> str:
    if method["name"] == "ensemble":
        return f"ensemble of {' and '.join(map(_said, method['members']))}"
    values = {name: value for name, value in method.items() if name not in ("name", "options")}
    values |= method.get("options", {})
    arguments = ", ".join(f"{name} {value}" for name, value in values.items())
    return f"{method['name']}: {arguments}" if arguments else str(method["name"])
