"""Every seed as a dot beside the mean and its interval: five numbers are shown, not summed up."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from stages.core.reporting import charts, sweeps
from stages.core.reporting.charts import Chart
from stages.core.reporting.sweeps import Comparison, Sweep

BAND = 34  # pixels of a row


def draw(found: Mapping[str, Sweep]) -> dict[str, charts.Specification]:
    """By sweep and number of the comparison."""
    return {
        f"sweep-{name}-{number}": charts.specification(seeds(one))
        for name, sweep in found.items()
        for number, one in enumerate(sweep.comparisons)
    }


def seeds(one: Comparison) -> Chart:
    labels = [series.name for series in one.series]
    value = alt.X(
        "value:Q", title=sweeps.units(one), scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(tickCount=6)
    )
    across = alt.Y(
        "name:N",
        scale=alt.Scale(domain=labels),
        title=None,
        axis=alt.Axis(ticks=False, domain=False, grid=False, labelLimit=420),
    )
    tips = [alt.Tooltip(f"{name}:N") for name in ("name", "seed", "text")]
    each = alt.Chart(alt.Data(values=dots(one))).encode(x=value, y=across, tooltip=tips)
    mean = alt.Chart(alt.Data(values=means(one))).encode(x=value, y=across, tooltip=tips)
    layers = [
        mean.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1.5)
        .encode(x=alt.X("low:Q"), x2="high:Q", color=alt.value("var(--ink)")),
        each.mark_point(filled=True, size=50, opacity=0.5).encode(color=alt.value("var(--line-1)")),
        mean.mark_tick(thickness=3, size=18).encode(color=alt.value("var(--ink)")),
    ]
    return alt.layer(*layers).properties(
        width="container", height=BAND * len(labels), description="the same numbers stand in the table below"
    )


def dots(one: Comparison) -> list[dict[str, Any]]:
    return [
        {"name": series.name, "value": found * _scale(one), "seed": seed, "text": sweeps.value(found, one)}
        for series in one.series
        for seed, found in series.values.items()
    ]


def means(one: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "name": series.name,
            "value": series.mean * _scale(one),
            "seed": "mean",
            "text": sweeps.value(series.mean, one),
        }
        | {"low": _scaled(series.low, one), "high": _scaled(series.high, one)}
        for series in one.series
    ]


def _scaled(value: float | None, one: Comparison) -> float | None:
    return None if value is None else value * _scale(one)


def _scale(one: Comparison) -> int:
    return 100 if one.share else 1
