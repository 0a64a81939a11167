"""From the teacher to the file: who was made from whom, by digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.lineage import PARENTS
from stages.core.reporting import findings, quantization
from stages.core.reporting.findings import SHIPPED, Distilled, Model
from stages.core.running import files
from stages.core.running.errors import Refusal

SHORT = 12
ABSENT = "absent.json"  # stands in the place of a model that was not trained


@dataclass(frozen=True)
class Link:
    name: str
    digest: str
    detail: str


@dataclass(frozen=True)
class Pedigree:
    models: dict[str, Model]
    chain: list[Link]


def read(folders: Mapping[str, Path], file: Path, distilled: Distilled) -> Pedigree:
    """The models' cards; a model that was made from another parent than the one at hand has no place on the page."""
    present = {name: folder for name, folder in folders.items() if name != "control" or _there(folder, distilled)}
    models = {name: findings.read(folder / "model.json", Model) for name, folder in present.items()}
    digests = {name: files.digest(folder) for name, folder in present.items()}
    for name, parent in PARENTS.items():
        if name in present and not _descends(models[name], models[parent], parent, distilled):
            raise Refusal(f"{folders[name]} was not made from {folders[parent]}: `dvc repro` rebuilds it")
    for name, model in models.items():
        for parent, digest in model.parents.items():
            if digests.get(parent, digest) != digest:
                raise Refusal(f"{folders[name]} was not made from {folders[parent]}: `dvc repro` rebuilds it")
    links = [Link(name, digests[name][:SHORT], describe(models[name])) for name in SHIPPED]
    return Pedigree(models, [*links, Link(file.name, files.digest(file)[:SHORT], "the file that is shipped")])


def _there(folder: Path, distilled: Distilled) -> bool:
    """A control that was not trained is a folder that only says so."""
    there = not (folder / ABSENT).is_file() or (folder / "model.json").exists()
    if there != (distilled.control is not None):
        said = "holds a control, distill.json none" if there else "holds no control, distill.json one"
        raise Refusal(f"{folder} {said}: `dvc repro` rebuilds it")
    return there


def _descends(model: Model, parent: Model, name: str, distilled: Distilled) -> bool:
    """A student names the teacher unless somebody else taught it; one that is the teacher has the teacher's weights."""
    if name != "teacher":
        return name in model.parents
    if distilled.taught_by == "nobody" and model.weights_sha256 != parent.weights_sha256:
        return False
    return (name in model.parents) == (distilled.taught_by in ("teacher", "nobody"))


def describe(model: Model) -> str:
    """As a person would say it: residual_cnn: blocks 6, hidden_layers 1."""
    if model.quantization:
        return quantization.method(model.quantization)
    text, begun = _said(model.architecture), model.origin.get("weights", "")
    return f"{text}; begun with {begun}" if begun else text


def _said(method: Mapping[str, Any]) -> str:
    if method["name"] == "ensemble":
        return f"ensemble of {' and '.join(map(_said, method['members']))}"
    values = {name: value for name, value in method.items() if name not in ("name", "options")}
    values |= method.get("options", {})
    arguments = ", ".join(f"{name} {value}" for name, value in values.items())
    return f"{method['name']}: {arguments}" if arguments else str(method["name"])
