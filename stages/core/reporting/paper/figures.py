"""The page's charts as pictures of their own, which need no page: colours, a legend and a width of their own."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import vl_convert

from stages.core.reporting import rendering
from stages.core.reporting.charts import Specification
from stages.core.reporting.paper import palette

SIZE = re.compile(r'width="([\d.]+)" height="([\d.]+)"')
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
THIRD, HALF = 206, 312  # of a page, in pixels
HEIGHT = 130
DENSE = 0.75  # lines and cells, of their heights on the page
SIDES = {"width", "height"}
ENLARGED = 2  # where a figure is looked at alone
QUIET = {f"{part}Color": "var(--muted)" for part in ("label", "title")} | {
    f"{part}Color": "var(--rule)" for part in ("domain", "tick", "grid")
}
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "padding": 2,
    "font": FONT,
    "view": {"stroke": None},
    "axis": QUIET | {"labelFontSize": 10, "titleFontSize": 10, "titleFontWeight": "normal", "tickSize": 4},
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "header": {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 10, "titleFontSize": 10},
    "legend": {
        "labelFontSize": 10,
        "labelColor": "var(--ink)",
        "orient": "top",
        "columns": 3,
        "symbolSize": 50,
        "symbolOpacity": 1,
    },
}


@dataclass(frozen=True)
class Drawing:
    """As SVG; `width` in pixels is that on paper."""

    svg: str
    width: float


def draw(charts: Mapping[str, Specification]) -> dict[str, Drawing]:
    return {name: _fitted(_painted(_explained(chart, _told(chart)))) for name, chart in charts.items()}


def _fitted(chart: Specification) -> Drawing:
    """What is as wide as its place on the page is here a third as wide as a page, or half, if its lines have names;
    labels included."""
    upwards = _measures_upwards(chart)
    fitted = chart | ({"height": HEIGHT} if upwards else {side: _dense(chart[side]) for side in SIDES & chart.keys()})
    if chart.get("width") != "container":
        return _drawn(fitted)
    return _drawn(fitted | {"width": THIRD if upwards else HALF, "autosize": {"type": "fit-x", "contains": "padding"}})


def _dense(size: Any) -> Any:
    """Of a whole chart, or of each step; "container" is no size."""
    if isinstance(size, dict):
        return {"step": size["step"] * DENSE}
    return size if isinstance(size, str) else size * DENSE


def _measures_upwards(chart: Specification) -> bool:
    """What has a line for each layer keeps its lines."""
    parts = (chart, *chart.get("layer", ()))
    return any(part.get("encoding", {}).get("y", {}).get("type") == "quantitative" for part in parts)


def _drawn(chart: Specification) -> Drawing:
    svg = vl_convert.vegalite_to_svg(chart, vl_version=rendering.VEGA_LITE, config=_painted(CONFIG))
    [(width, height), *_] = SIZE.findall(svg)
    size = f'width="{float(width) * ENLARGED:g}" height="{float(height) * ENLARGED:g}"'
    return Drawing(SIZE.sub(size, svg, count=1), float(width))


def _painted(content: dict[str, Any]) -> dict[str, Any]:
    return json.loads(palette.painted(json.dumps(content)))


def _explained(part: Any, told: Mapping[str, set[str]], key: str = "") -> Any:
    """The page has legends beside its charts, so they have none; of all that a scale knows, what there is is told."""
    if isinstance(part, list):
        return [_explained(one, told) for one in part]
    if not isinstance(part, dict):
        return part
    if key in ("color", "shape") and "domain" in (part.get("scale") or {}) and part.get("legend", part) is None:
        there = [name for name in part["scale"]["domain"] if name in told.get(part["field"], ())]
        return part | {"title": None, "legend": {"values": there, "title": None}}
    return {name: _explained(one, told, name) for name, one in part.items()}


def _told(chart: Specification) -> dict[str, set[str]]:
    """The words that stand in each field of the chart's data."""
    told: dict[str, set[str]] = {}
    for row in _rows(chart):
        for field, value in row.items():
            if isinstance(value, str):
                told.setdefault(field, set()).add(value)
    return told


def _rows(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, list):
        for one in part:
            yield from _rows(one)
    elif isinstance(part, dict):
        for key, one in part.items():
            if key == "data" and isinstance(one, dict):
                yield from one.get("values", ())
            elif key == "datasets":
                yield from (row for rows in one.values() for row in rows)
            else:
                yield from _rows(one)
