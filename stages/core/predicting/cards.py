"""The card beside a converted file: who made it, what its files must be, and what they mean."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import describing
from .describing import Description
from .errors import Unusable


def read(file: Path) -> Mapping[str, Any] | None:
    """None where nothing like a card lies there."""
    try:
        told = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(f"{file.with_suffix('.json')} cannot be read as the card of {file.name}: {error}") from error
    return told if isinstance(told, dict) and isinstance(told.get("files"), dict) else None


def verify(file: Path) -> Mapping[str, Any] | None:
    """The card, if there is one and its files are those that it was written with."""
    card = read(file)
    for name, stated in card["files"].items() if card else ():
        try:
            with (file.parent / name).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            same = digest == stated["sha256"]
        except (OSError, TypeError, KeyError):
            same = False
        if not same:
            card_name = file.with_suffix(".json").name
            raise Unusable(f"{file.parent / name} is not the file that {card_name} was written with: convert it anew")
    return card


def description(card: Mapping[str, Any]) -> Description:
    return describing.checked(card.get("classes"), card.get("image_size"), card.get("fit"))
