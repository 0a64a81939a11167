"""What an exported file says of itself: which pictures it takes, and what its answers mean."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Unusable
from .pictures import FITS
from .schema import ONE_BY_ONE, SCHEMA

LARGEST = 8192  # pixels


@dataclass(frozen=True)
class Description:
    classes: tuple[str, ...]
    image_size: int
    fit: str
    one_by_one: bool = False


def of_metadata(told: Mapping[str, str]) -> Description:
    """As the metadata of an ONNX or ORT file holds it: texts."""
    try:
        schema, size = int(told.get("schema", 1)), int(told["image_size"])
        classes, fit = json.loads(told["classes"]), told["fit"].split(",")[0]
    except (KeyError, ValueError, RecursionError) as error:
        raise Unusable(f"its metadata lacks what LightVision writes into every file it exports ({error})") from error
    if schema > SCHEMA:
        raise Unusable(f"it is of schema {schema}, and this version reads {SCHEMA} and older: take a newer LightVision")
    return checked(classes, size, fit, told.get("asked") == ONE_BY_ONE)


def checked(classes: Any, size: Any, fit: Any, one_by_one: bool = False) -> Description:
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(one, str) and one for one in classes):
        raise Unusable(f"its class names are no list of at least two names: {json.dumps(classes)[:100]}")
    if len(set(classes)) < len(classes):
        raise Unusable("two of its classes bear the same name")
    if type(size) is not int or not 1 <= size <= LARGEST:
        raise Unusable(f"its pictures would be {size} pixels wide")
    if fit not in FITS:
        raise Unusable(f"it wants pictures to be made fit by {fit!r}; known are {', '.join(FITS)}")
    return Description(tuple(classes), size, fit, one_by_one)
