"""A study as a heat map over two axes, or along one; several metrics along one axis are lines."""

from typing import Any

import altair as alt

from stages.core.reporting import studies
from stages.core.reporting.charts import Chart
from stages.core.reporting.studies import Cell, Metric, Study

PALEST, DEEPEST = 0.1, 0.75  # opacity of a cell
PALE = 0.4  # of a bar that shows nothing
UNTURNED = 12  # characters of a label beneath a column
WIDTH, HEIGHT = 84, 46  # pixels of a cell
BAR = 34
TALL = 300


def draw(study: Study) -> Chart:
    if len(study.values) > 1:
        return curves(study)
    return heat_map(study, *study.metrics) if study.y else along_one_axis(study, *study.metrics)


def heat_map(study: Study, metric: Metric) -> Chart:
    """A gain's colour says its sign, its depth how large it is; one that is not shown is pale and says so."""
    found = studies.cells(study, metric)
    across, down = ([studies.label(place) for place in studies.along(study, axis)] for axis in study.axes)
    axis = alt.Axis(ticks=False, domain=False, grid=False, labelLimit=260, labelOverlap=False)
    turned = axis.copy()
    turned.labelAngle = 0 if max(map(len, across)) <= UNTURNED else -90
    base = alt.Chart(alt.Data(values=rows(found, metric))).encode(
        x=alt.X("x:N", scale=alt.Scale(domain=across), title=study.x, axis=turned),
        y=alt.Y("y:N", scale=alt.Scale(domain=down[::-1]), title=study.y, axis=axis),
        tooltip=tips(study, metric),
    )
    layers = [
        base.mark_rect(stroke="var(--surface)", strokeWidth=2).encode(
            color=alt.Color("colour:N", scale=None), opacity=alt.Opacity("depth:Q", scale=None)
        ),
        base.transform_filter("!datum.note").mark_text(color="var(--ink)", fontSize=13).encode(text="text:N"),
        base.transform_filter("datum.note").mark_text(color="var(--ink)", fontSize=13, dy=-6).encode(text="text:N"),
        base.mark_text(color="var(--muted)", fontSize=10, dy=10).encode(text="note:N"),
    ]
    return alt.layer(*layers).properties(
        width=alt.Step(WIDTH),
        height=alt.Step(HEIGHT),
        description=f"{study.title}: the same numbers stand in the table below",
        view=alt.ViewBackground(stroke="var(--rule)"),
    )


def along_one_axis(study: Study, metric: Metric) -> Chart:
    """Gains are bars from zero; other values are dots, since a bar that does not begin at zero misleads."""
    found = studies.cells(study, metric)
    labels = [studies.label(place) for place in studies.along(study, study.x)]
    scale = alt.Scale(zero=metric.is_gain, padding=14)
    base = alt.Chart(alt.Data(values=rows(found, metric))).encode(
        y=alt.Y(
            "x:N",
            scale=alt.Scale(domain=labels),
            title=None,
            axis=alt.Axis(ticks=False, domain=False, grid=False, labelLimit=420),
        ),
        color=alt.Color("colour:N", scale=None),
        tooltip=tips(study, metric),
    )
    value = alt.X("value:Q", title=metric.unit, scale=scale, axis=alt.Axis(grid=True, tickCount=6))
    bars = base.mark_bar(cornerRadiusEnd=2, height={"band": 0.55}).encode(
        x=value, opacity=alt.condition("datum.note === 'not shown'", alt.value(PALE), alt.value(1))
    )
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(x=value)
    whiskers = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1.5)
        .encode(x=alt.X("low:Q"), x2="high:Q", color=alt.value("var(--ink)"))
    )
    layers: list[Any] = [bars, whiskers] if metric.is_gain else [whiskers, dots]
    if metric.is_gain:
        zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color="var(--muted)").encode(x="zero:Q")
        layers.append(zero)
    return alt.layer(*layers).properties(
        width="container",
        height=BAR * len(labels),
        description=f"{study.title}: the same numbers stand in the table below",
    )


def curves(study: Study) -> Chart:
    """A line for each metric; only dots where the places are names, between which there is nothing."""
    names = studies.legend(study.values)
    values = [
        {"metric": name, "place": cell.at[0]} | row
        for name, metric in zip(names, study.metrics, strict=True)
        for cell in studies.cells(study, metric)
        for row in rows([cell], metric)
    ]
    numbers = studies.counts(study)
    [unit] = {metric.counted_in for metric in study.metrics}
    axis = alt.Axis(grid=True, tickCount=6)
    colours = [f"var(--line-{number})" for number, _ in enumerate(names, start=1)]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=_across(study),
        color=alt.Color("metric:N", scale=alt.Scale(domain=names, range=colours), legend=None),
        tooltip=[
            alt.Tooltip("metric:N"),
            alt.Tooltip("x:N", title=study.x),
            alt.Tooltip("text:N", title="value"),
            *(alt.Tooltip(f"{name}:{kind}") for name, kind in (("interval", "N"), ("verdict", "N"), ("n", "Q"))),
        ],
    )
    value = alt.Y("value:Q", title=unit or None, scale=alt.Scale(zero=False, padding=10), axis=axis)
    lines = [base.mark_line(strokeWidth=2).encode(y=value)] if numbers else []
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5, opacity=0.6)
    dots = base.mark_point(filled=True, size=60, opacity=1)
    layers = [*lines, whiskers.encode(y=alt.Y("low:Q"), y2="high:Q"), dots.encode(y=value)]
    return alt.layer(*layers).properties(
        width="container", height=TALL, description=f"{study.title}: the same numbers stand in the table below"
    )


def _across(study: Study) -> alt.X:
    if studies.counts(study):
        scale, axis = alt.Scale(zero=False, nice=False, padding=12), alt.Axis(tickCount=10)
        return alt.X("place:Q", title=study.x, scale=scale, axis=axis)
    order = [studies.label(place) for place in studies.along(study, study.x)]
    return alt.X("x:N", title=study.x, scale=alt.Scale(domain=order), axis=alt.Axis(labelAngle=0, labelLimit=160))


def rows(found: list[Cell], metric: Metric) -> list[dict[str, Any]]:
    """A value that is not there is left out: JSON has no word for it."""
    factor = metric.factor
    depths = _depths(found, metric)
    table: list[dict[str, Any]] = []
    for cell, depth in zip(found, depths, strict=True):
        row = {
            "x": studies.label(cell.at[0]),
            "y": studies.label(cell.at[-1]),
            "value": cell.value * factor,
            "low": cell.low * factor if cell.low is not None else None,
            "high": cell.high * factor if cell.high is not None else None,
            "text": studies.said(cell.value, metric),
            "interval": studies.sureness(cell, metric),
            "note": note(cell, metric),
            "verdict": cell.verdict,
            "n": cell.n,
            "colour": _colour(cell, metric),
            "depth": depth,
        }
        table.append({name: value for name, value in row.items() if value is not None})
    return table


def note(cell: Cell, metric: Metric) -> str:
    """Beneath the value in its cell."""
    repeated = f"n = {cell.n}" if cell.n > 1 else ""
    return "not shown" if metric.is_gain and not cell.shown else repeated


def tips(study: Study, metric: Metric) -> list[alt.Tooltip]:
    shown = [alt.Tooltip("x:N", title=study.x), alt.Tooltip("text:N", title=metric.name)]
    if study.y:
        shown.insert(1, alt.Tooltip("y:N", title=study.y))
    return [*shown, alt.Tooltip("interval:N"), alt.Tooltip("verdict:N"), alt.Tooltip("n:Q")]


def _colour(cell: Cell, metric: Metric) -> str:
    if not metric.is_gain:
        return "var(--student)"
    return "var(--right)" if cell.value >= 0 else "var(--wrong)"


def _depths(found: list[Cell], metric: Metric) -> list[float]:
    """Around zero for gains; otherwise from the smallest value to the largest."""
    values = [abs(cell.value) if metric.is_gain else cell.value for cell in found]
    least = 0.0 if metric.is_gain else min(values)
    reach = max(values) - least or 1.0
    depths = [PALEST + (DEEPEST - PALEST) * (value - least) / reach for value in values]
    pairs = zip(found, depths, strict=True)
    return [depth * PALE if metric.is_gain and not cell.shown else depth for cell, depth in pairs]
