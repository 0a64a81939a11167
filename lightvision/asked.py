"""Whatever can be asked what a picture shows: exported files of every kind, and networks as stages keep them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from stages.core.predicting import cards, model
from stages.core.predicting.classifying import Classifier, Logits
from stages.core.predicting.describing import Description, checked
from stages.core.predicting.errors import Unusable
from stages.core.running.errors import Refusal

CARD = "model.json"
MANY = 512  # pictures for which a process is started, which loads a whole library first


def load(path: str | Path) -> Classifier:
    """A file that LightVision exported or converted, a folder of such, or the folder of a network."""
    place = Path(path)
    try:
        if place.is_dir() and ((place / CARD).exists() or (place / "absent.json").exists()):
            return _network(place)
        file = model.chosen(place, tuple(OPENED))
        opened = OPENED.get(file.suffix.lower())
        if opened is None:
            raise Refusal(f"{file} cannot be asked: files end in {', '.join(OPENED)}, and a network is a folder")
        return opened(file)
    except Unusable as problem:
        raise Refusal(str(problem)) from problem


def _converted(file: Path) -> Classifier:
    """By whoever made it, in a process of its own."""
    card = cards.verify(file)
    if card is None:
        raise Unusable(f"{file} has no card {file.stem}.json beside it that says what it is: converting writes both")
    return Classifier(str(file), cards.description(card), _by_its_maker(file), batch=MANY)


def _by_its_maker(file: Path) -> Logits:
    try:
        from stages.core.converting import asking
    except ImportError as error:
        raise Refusal(
            f"{file} is asked by the environment that made it, and {error.name} is not installed here, by which that "
            "is found: ask an .onnx or .ort file"
        ) from error
    return lambda images: asking.logits(file, images)


def _network(folder: Path) -> Classifier:
    try:
        import torch

        from stages.core import loading
        from stages.core.networks import artifact
        from stages.core.params import DynamicInt8
    except ImportError as error:
        raise Refusal(
            f"{folder} is a network for PyTorch, and {error.name} is not installed here: ask an exported .onnx file"
        ) from error
    if why := artifact.absent(folder):
        raise Refusal(f"{folder} holds no network: {why}")
    found = loading.load(folder)
    facts = found.card.facts
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (facts.mean, facts.std))

    @torch.no_grad()
    def logits(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return found.network(pixels.div_(255).sub_(mean).div_(std)).float().numpy()

    one_by_one = isinstance(found.card.quantization, DynamicInt8)
    description: Description = checked(list(facts.classes), facts.image_size, facts.fit, one_by_one)
    return Classifier(str(folder), description, logits)


OPENED: Mapping[str, Callable[[Path], Classifier]] = {
    **dict.fromkeys(model.ENDINGS, model.load),
    **dict.fromkeys((".pt2", ".tflite", ".pte", ".xml", ".param"), _converted),
}
