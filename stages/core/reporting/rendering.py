"""Everything that was found, in one HTML file that needs nothing else, not even a network."""

from functools import cache
from pathlib import Path
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from stages.core import words

HERE = Path(__file__).parent
VEGA_LITE = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])  # that altair writes for


def render(content: dict[str, Any]) -> str:
    """What the template asks for and is not given is an error; what it is given is text, never HTML."""
    return template().render(content, style=inline("page.css"), script=inline("page.js"), vega=vega())


@cache
def template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": words.percent,
        "whole": words.whole,
        "sentence": words.sentence,
        "heading": words.heading,
    }
    return environment.get_template("page.html.jinja")


def inline(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this very package


@cache
def vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))  # noqa: S704 - vl_convert's own script
