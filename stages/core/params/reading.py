"""params.yaml, read as DVC reads it; a mistake is told in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.params.base import Settings
from stages.core.params.budget import Budget
from stages.core.params.sections import Params
from stages.core.running.errors import Refusal

Kind = TypeVar("Kind", bound=Settings)


def load(path: Path) -> Params:
    """Read as DVC reads (YAML 1.2, where 1e-3 is a number), and stop at the first sight of a mistake."""
    if not path.is_file():
        raise Refusal(f"{path} is not there: run stages from the project's folder")
    return _checked(Params, _content(path), path)


def load_budget(path: Path) -> Budget:
    if not path.is_file():
        raise Refusal(f"{path} is not there: it is a file of limits, such as docs/examples/edge.yaml")
    found = _content(path) or {}
    if not isinstance(found, dict):
        raise Refusal(f"{path} holds no limits: write one a line, as in `megabytes: 5`")
    return limits(found, path)


def limits(asked: Mapping[str, Any], where: object) -> Budget:
    """A budget of its own names the limits that it sets, and no others."""
    found = _checked(Budget, dict.fromkeys(Budget.model_fields) | dict(asked), where)
    if not any(limit is not None for limit in found.model_dump().values()):
        raise Refusal(f"{where} limits nothing: set one of {', '.join(Budget.model_fields)}")
    return found


def _content(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path)
    except YAMLError as error:
        raise Refusal(f"{path} is not YAML: {error}") from error


def _checked(kind: type[Kind], content: Any, where: object) -> Kind:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise Refusal("; ".join(f"{where}: {_explain(kind, detail)}" for detail in error.errors())) from error


def _explain(kind: type[Settings], detail: ErrorDetails) -> str:
    where = [part for part in detail["loc"] if isinstance(part, str)]
    name = ".".join(str(part) for part in where)
    if detail["type"] == "extra_forbidden":
        return f"{name} is not a parameter; allowed here: {', '.join(_names(kind, where[:-1]))}"
    if not name:  # what two sections must agree on
        return str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{name} is missing"
    if detail["type"] == "value_error" and isinstance(detail["input"], dict):  # what entries must agree on
        return f"{name}: {detail['msg'].removeprefix('Value error, ')}"
    return f"{name}: {detail['msg']}, got {detail['input']!r}"


def _names(kind: type[Settings], where: list[str]) -> list[str]:
    """The parameters that a section holds; a method's own name stands in the path of its section."""
    classes: list[type[Settings]] = [kind]
    for part in where:
        classes = [found for kind in classes for found in _classes(kind, part)] or classes
    return list(dict.fromkeys(name for kind in classes for name in kind.model_fields))


def _classes(kind: type[Settings], part: str) -> list[type[Settings]]:
    field = kind.model_fields.get(part)
    if field is None:
        named = kind.model_fields.get("name")
        return [kind] if named and part in getattr(named.annotation, "__args__", ()) else []
    members = getattr(field.annotation, "__args__", (field.annotation,))
    return [member for member in members if isinstance(member, type) and issubclass(member, Settings)]
