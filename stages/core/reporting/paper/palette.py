"""The page's colours as it prints them: charts name CSS variables, and paper has no style sheet."""

import re
from functools import cache
from pathlib import Path

STYLE = Path(__file__).parents[1] / "page.css"
PRINTED = re.compile(r"@media print\s*\{\s*:root\s*\{([^}]*)\}")
COLOUR = re.compile(r"--([\w-]+):\s*(#\w+);")
NAMED = re.compile(r"var\(--([\w-]+)\)")


@cache
def colours() -> dict[str, str]:
    """A name that the print style does not change has the colour that it has by day."""
    style = STYLE.read_text(encoding="utf-8")
    by_day, *_ = style.partition("@media")
    printed = "".join(PRINTED.findall(style))
    return dict(COLOUR.findall(by_day) + COLOUR.findall(printed))


def painted(text: str) -> str:
    """With a colour for each variable; one that the style does not have is an error."""
    return NAMED.sub(lambda name: colours()[name[1]], text)
