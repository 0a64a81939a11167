"""Charts that have a line for each layer, in network order."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from stages.core.reporting.charts import Chart

BAR, LINE = 20, 18  # pixels of a layer
LABEL = 150
DEEPEST = 0.9  # opacity where most is lost


def shares(parts: Mapping[str, float], texts: Mapping[str, str], title: str, description: str) -> Chart:
    """Bars from nothing to all."""
    rows = [{"layer": name, "percent": share * 100, "all": 100, "text": texts[name]} for name, share in parts.items()]
    base = _bars(rows, alt.Tooltip("percent:Q", title=title, format=".1f"), alt.Tooltip("text:N", title=" "))
    across = alt.X(
        "percent:Q",
        title=title,
        scale=alt.Scale(domain=[0, 100]),
        axis=alt.Axis(orient="top", values=[0, 25, 50, 75, 100]),
    )
    whole = base.mark_bar(color="var(--rule)", height={"band": 0.62}).encode(x="all:Q")
    part = base.mark_bar(color="var(--pruned)", height={"band": 0.62}).encode(x=across)
    return _sized([whole, part, _beside(base, "all")], rows, BAR, description)


def amounts(sizes: Mapping[str, float], texts: Mapping[str, str], title: str, description: str) -> Chart:
    """Bars from nothing to the largest."""
    rows = [{"layer": name, "amount": size, "text": texts[name]} for name, size in sizes.items()]
    base = _bars(rows, alt.Tooltip("amount:Q", title=title, format=",.0f"), alt.Tooltip("text:N", title=" "))
    across = alt.X("amount:Q", title=title, axis=alt.Axis(orient="top", tickCount=4, format="~s"))
    bar = base.mark_bar(color="var(--quantized)", height={"band": 0.62}).encode(x=across)
    return _sized([bar, _beside(base, "amount")], rows, BAR, description)


def _bars(rows: Sequence[Mapping[str, Any]], *tips: alt.Tooltip) -> alt.Chart:
    axis = alt.Axis(ticks=False, domain=False, labelLimit=LABEL)
    return alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("layer:N", sort=None, title=None, axis=axis), tooltip=[alt.Tooltip("layer:N"), *tips]
    )


def _beside(base: alt.Chart, end: str) -> alt.Chart:
    return base.mark_text(align="left", dx=6, fontSize=11, color="var(--muted)").encode(x=f"{end}:Q", text="text:N")


def depths(lost: Sequence[float]) -> list[float]:
    """Opacities: what loses nothing is not seen."""
    return [DEEPEST * one / (max(lost) or 1) for one in lost]


def heat_map(rows: Sequence[Mapping[str, Any]], across: alt.X, tips: Sequence[alt.Tooltip], description: str) -> Chart:
    """Cells as deep as their `depth`; where rows tell what was `given`, its cells are marked."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    axis = alt.Axis(ticks=False, domain=False, grid=False, labelLimit=LABEL)
    above = axis.copy()
    above.orient, above.labelAngle = "top", 0
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=across.axis(above),
        y=alt.Y("layer:N", sort=layers, title=None, axis=axis),
        tooltip=[alt.Tooltip("layer:N"), *tips],
    )
    cells = base.mark_rect(stroke="var(--surface)", strokeWidth=1.5, color="var(--wrong)").encode(
        opacity=alt.Opacity("depth:Q", scale=None)
    )
    mark = base.mark_point(filled=True, size=36, opacity=1, color="var(--ink)").transform_filter("datum.given")
    drawn = [cells, mark] if any("given" in row for row in rows) else [cells]
    return _sized(drawn, layers, LINE, description).properties(view=alt.ViewBackground(stroke="var(--rule)"))


def _sized(layers: Sequence[alt.Chart], lines: Sequence[Any], height: int, description: str) -> Chart:
    return alt.layer(*layers).properties(width="container", height=height * len(lines), description=description)
