"""What a teacher said of views: a folder with advice.json, of what this is the advice, and a file for each view."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stages.core import batches, params, views
from stages.core.batches import WHOLE, Batch, Order, Part, Pictures
from stages.core.machine import Machine
from stages.core.running import files
from stages.core.running.errors import Refusal

SCHEMA = 1
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
LOGITS, PLACES, REST = "logits", "places", "rest"  # all of them; or the highest, which they are, and what is left


@dataclass(frozen=True)
class Record:
    """What advice.json says: of what this is the advice, and the digests of its views."""

    advise: params.Advise
    augment: params.Augment
    teacher: str
    train: str
    classes: int
    views: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        settings = {"advise": self.advise.model_dump(mode="json"), "augment": self.augment.model_dump(mode="json")}
        said = {"teacher": self.teacher, "train": self.train, "classes": self.classes, "views": self.views}
        content = {"schema": SCHEMA} | said | settings
        files.write_json(folder / "advice.json", content)

    @classmethod
    def read(cls, folder: Path) -> "Record":
        path = folder / "advice.json"
        if not path.is_file():
            raise Refusal(f"{folder} is no advice: it has no advice.json; `dvc repro advise` writes it")
        try:
            content = files.read_json(path)
            if content["schema"] != SCHEMA:
                raise Refusal(f"{path} has schema {content['schema']}, this version reads {SCHEMA}")
            return cls(
                TypeAdapter(params.Advise).validate_python(content["advise"]),
                TypeAdapter(params.Augment).validate_python(content["augment"]),
                *(content[name] for name in ("teacher", "train", "classes")),
                views=tuple(content["views"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(f"{path} cannot be read as advice: {error}") from error


@dataclass(frozen=True)
class Views:
    """What is seen in the place of freshly augmented pictures; without a folder, nobody's advice comes with them."""

    record: Record
    folder: Path | None

    def shuffled(
        self, pictures: Pictures, size: int, seed: int, epoch: int, skip: int = 0, part: Part = WHOLE
    ) -> Generator[Batch]:
        """The order is that of the seed, as without views; epoch after epoch, view after view, and round again."""
        for_order, _, _ = np.random.SeedSequence((seed, epoch)).spawn(3)
        order = Order.drawn(pictures, size, for_order, skip, part)
        number = epoch % self.record.advise.views
        view = views.draw(pictures, self.record.augment, self.record.advise.mix, self.record.advise.seed, number)
        advice = self.advice(number, pictures.device)
        for row, (images, labels) in zip(order.rows, views.parts(pictures, view, order.beside(pictures)), strict=True):
            numbers = order.numbers[row]
            yield Batch(images, labels, numbers, advice(numbers) if advice else None)

    def advice(self, number: int, device: torch.device) -> Callable[[Tensor], Tensor] | None:
        if self.folder is None:
            return None
        path = self.folder / name(number)
        if not path.is_file() or files.digest(path) != self.record.views[number]:
            raise Refusal(
                f"{path} is not the file that advice.json was written with; `dvc repro advise` writes it anew"
            )
        kept = {key: values.to(device) for key, values in load(path).items()}
        return lambda numbers: unpack({key: values[numbers] for key, values in kept.items()}, self.record.classes)


def ask(
    network: nn.Module, pictures: Pictures, wanted: params.Advise, augment: params.Augment, number: int, here: Machine
) -> Tensor:
    """What the network says of a view, picture by picture."""
    places = batches.parts_in_order(pictures)
    chosen = list(places) if pictures.streamed else [numbers.to(here.device) for numbers in places]
    view = views.draw(pictures, augment, wanted.mix, wanted.seed, number)
    with torch.no_grad(), here.autocast():
        return torch.cat([network(images).float() for images, _ in views.parts(pictures, view, chosen)])


def name(number: int) -> str:
    return f"view-{number:05}.safetensors"


def save(path: Path, logits: Tensor, settings: params.Advise) -> None:
    kept = {key: values.cpu().contiguous() for key, values in pack(logits, settings).items()}
    partial = path.with_suffix(".partial")
    save_file(kept, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{path} cannot be read: {error}; `dvc repro advise` writes it anew") from error


def pack(logits: Tensor, settings: params.Advise) -> dict[str, Tensor]:
    """All logits, or the highest and, as one number, what chance they leave to the others."""
    dtype, classes = DTYPES[settings.precision], logits.shape[1]
    if settings.keep is None or settings.keep >= classes:
        return {LOGITS: logits.to(dtype)}
    highest, places = logits.topk(settings.keep, dim=1)
    rest = logits.scatter(1, places, -math.inf).logsumexp(dim=1)
    return {LOGITS: highest.to(dtype), PLACES: places.int(), REST: rest.to(dtype)}


def unpack(kept: Mapping[str, Tensor], classes: int) -> Tensor:
    """Classes that were not kept share what is left evenly."""
    logits = kept[LOGITS].float()
    if PLACES not in kept:
        return logits
    even = kept[REST].float()[:, None] - math.log(classes - logits.shape[1])
    return even.expand(len(logits), classes).scatter(1, kept[PLACES].long(), logits)
