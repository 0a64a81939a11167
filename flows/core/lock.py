"""dvc.lock as blocks of text, one for each stage: what DVC wrote stays as it wrote it, and is parsed only once."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML, YAMLError

from stages.core.running.errors import Refusal

NAME = "dvc.lock"
HEAD = ("schema: '2.0'", "stages:")


def split(text: str, where: str) -> dict[str, str]:
    """A block begins with the name of its stage, two blanks in; all of it that follows stands further in."""
    head, *lines = text.split("stages:\n") if text else ("", "")
    blocks: dict[str, str] = {}
    name = ""
    if text and (head.strip() != HEAD[0] or len(lines) != 1):
        raise _strange(where)
    for line in "".join(lines).splitlines(keepends=True):
        if not line.startswith("  ") or not (name or line[2] != " "):
            raise _strange(where)
        if line[2] != " ":
            name = line.strip().removesuffix(":")
            if name in blocks or not line.endswith(":\n"):
                raise _strange(where)
            blocks[name] = ""
        blocks[name] += line
    return blocks


def joined(blocks: Mapping[str, str]) -> str:
    return "\n".join(HEAD) + "\n" + "".join(blocks.values())


@lru_cache(maxsize=16384)
def entry(block: str, where: str) -> Mapping[str, Any]:
    """What DVC noted of a stage."""
    try:
        [noted] = YAML(typ="safe").load(block).values()
        return (
            {"cmd": noted["cmd"]}
            | {part: noted.get(part, []) for part in ("deps", "outs")}
            | {"params": noted.get("params", {})}
        )
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise _strange(where) from error


def _strange(where: str) -> Refusal:
    return Refusal(
        f"{NAME} of {where} is not as DVC writes it (schema 2.0): `dvc repro` or `dvc commit` writes it anew"
    )
