"""How what others wrote is read: strictly, so that nothing on the page can be a silent blank."""

from pathlib import Path
from typing import TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.core.running.errors import Refusal

NETWORKS = ("teacher", "control", "student", "pruned", "quantized")
SHIPPED = ("teacher", "student", "pruned", "quantized")
PORTABLE = "quantized-portable"


class Found(BaseModel):
    """A key that is missing is an error; one that the page does not show is none."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Found)


def read(path: Path, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        said = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise Refusal(f"{path}: {said}; `dvc repro` writes it anew") from error
    except FileNotFoundError as error:
        raise missing(path) from error


def missing(path: Path) -> Refusal:
    return Refusal(f"{path} is missing; `dvc repro` writes it anew")


def table(path: Path, texts: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """A class may be called `NA` or `007`: only the columns of `numbers` are taken for numbers."""
    try:
        content = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise missing(path) from error
    lacking = [name for name in (*texts, *numbers) if name not in content]
    if lacking:
        raise Refusal(f"{path} has no column {lacking[0]}; `dvc repro` writes it anew")
    try:
        return content.astype(dict.fromkeys(numbers, float))
    except ValueError as error:
        raise Refusal(f"{path}: {error}; `dvc repro` writes it anew") from error
