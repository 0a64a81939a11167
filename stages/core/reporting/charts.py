"""The page's charts, as Vega-Lite. Colours are CSS variables, so that light, dark and print need no second chart."""

import math
from collections import Counter
from typing import Any

import altair as alt

from stages.core.reporting.classes import pair_counts
from stages.core.reporting.findings import NETWORKS, SHIPPED, Findings

Specification = dict[str, Any]
Chart = alt.LayerChart | alt.FacetChart  # as altair types what `properties` returns

SHAPES = {"teacher": "square", "control": "diamond", "student": "circle", "pruned": "triangle-up", "quantized": "cross"}
TIPS = {
    "megabytes": "MB",
    "milliseconds": "ms",
    "milliseconds_low": "ms from",
    "milliseconds_high": "ms to",
    "millijoules": "mJ",
    "millijoules_low": "mJ from",
    "millijoules_high": "mJ to",
}
FAINT = 0.3  # opacity of other runs, and of the seeds whose student does not go on
ROOM = 1.5  # beside the outermost points on a logarithmic axis
SHALLOWEST, MISTAKES_STAND_OUT = 0.12, 0.37  # opacity of a cell with few of its class's pictures
LABEL_FITS = 4  # characters beneath a cell
COUNTS_FIT = 24  # classes; in more, a count has no room in its cell


def everything(findings: Findings, others: list[dict[str, Any]]) -> dict[str, Specification]:
    """`others` are files of other runs."""
    charts = {name: trade_off(*cost, others) for name, cost in costs(findings).items()}
    charts["confusion"] = confusion(findings)
    if findings.distilled.control:
        charts["seeds"] = seeds(findings)
    return {name: specification(chart) for name, chart in charts.items()}


def specification(chart: Chart) -> Specification:
    """Without the schema's address: the page names no place on the net that it does not need."""
    content = chart.to_dict()
    content.pop("$schema")
    return content


def colour() -> alt.Color:
    scale = alt.Scale(domain=list(NETWORKS), range=[f"var(--{name})" for name in NETWORKS])
    return alt.Color("network:N", scale=scale, legend=None)


def shape() -> alt.Shape:
    return alt.Shape("network:N", scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())), legend=None)


# ----------------------------------------------------------------------------------------- accuracy for cost


def costs(findings: Findings) -> dict[str, tuple[list[dict[str, Any]], str, str]]:
    """What accuracy is held against: the rows, the name of the cost, and its title. Only what was measured."""
    rows = trade_off_rows(findings)
    found = {
        "size": (rows, "megabytes", "file, MB"),
        "latency": (rows, "milliseconds", "latency on one thread, ms"),
    }
    measured = [row for row in rows if "millijoules" in row]
    return found | ({"energy": (measured, "millijoules", "energy of a picture, mJ")} if measured else {})


def trade_off_rows(findings: Findings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in SHIPPED:
        file = getattr(findings.benchmarked.files, name)
        row = {
            "network": name,
            "file": f"{name}.onnx",
            "run": "this one",
            "accuracy": file.accuracy * 100,
            "accuracy_low": file.accuracy_low * 100,
            "accuracy_high": file.accuracy_high * 100,
            "megabytes": file.bytes / 1e6,
            "milliseconds": file.one_thread.median,
            "milliseconds_low": file.one_thread.low,
            "milliseconds_high": file.one_thread.high,
        }
        if file.joules:
            spent = {"": file.joules.per_picture, "_low": file.joules.low, "_high": file.joules.high}
            row |= {f"millijoules{end}": joules * 1e3 for end, joules in spent.items()}
        rows.append(row)
    return rows


def front(rows: list[dict[str, Any]], cost: str) -> list[str]:
    """The networks that no other beats in one respect without losing in the other (Pareto)."""

    def beaten(row: dict[str, Any]) -> bool:
        return any(
            other["accuracy"] >= row["accuracy"]
            and other[cost] <= row[cost]
            and (other["accuracy"], other[cost]) != (row["accuracy"], row[cost])
            for other in rows
        )

    return [row["network"] for row in rows if not beaten(row)]


def trade_off(rows: list[dict[str, Any]], cost: str, title: str, others: list[dict[str, Any]]) -> Chart:
    """Other runs are faint, and only where it is known what they cost."""
    beside = [row for row in others if cost in row]
    heard = [row[f"accuracy{end}"] for end in ("_low", "_high") for row in rows] + [row["accuracy"] for row in beside]
    lowest, highest = min(heard), max(heard)
    room = (highest - lowest) / 10
    heights = alt.Scale(domain=[max(0, lowest - room), min(100, highest + room)], nice=False)
    costs = [row[limit] for row in (*rows, *beside) for limit in (cost, f"{cost}_low", f"{cost}_high") if limit in row]
    base = alt.Chart(alt.Data(values=rows)).encode(color=colour())
    x = across(cost, title, min(costs), max(costs))
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
        x=x,
        y=alt.Y("accuracy_low:Q", title="accuracy on test, %", scale=heights, axis=alt.Axis(tickCount=5)),
        y2="accuracy_high:Q",
    )
    dots = base.mark_point(filled=True, size=130, opacity=1).encode(
        x=x, y="accuracy:Q", shape=shape(), tooltip=tips(rows)
    )
    layers = [bars, dots]
    if beside:
        faint = alt.Chart(alt.Data(values=beside)).mark_point(filled=True, size=60, opacity=FAINT)
        layers.insert(0, faint.encode(x=x, y="accuracy:Q", color=colour(), shape=shape(), tooltip=tips(beside)))
    if f"{cost}_low" in rows[0]:
        sides = base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
            x=alt.X(f"{cost}_low:Q"), x2=f"{cost}_high:Q", y="accuracy:Q"
        )
        layers.insert(1, sides)
    description = f"Accuracy with its interval against {title}; the same numbers stand in the table of every step."
    return alt.layer(*layers).properties(width="container", height=260, description=description)


def across(cost: str, title: str, low: float, high: float) -> alt.X:
    """Logarithmic, but where an interval reaches to zero."""
    if low <= 0:
        return alt.X(f"{cost}:Q", title=title, axis=alt.Axis(format="~g", tickCount=5))
    scale = alt.Scale(type="log", domain=[low / ROOM, high * ROOM], nice=False)
    return alt.X(f"{cost}:Q", title=f"{title} (log)", scale=scale, axis=alt.Axis(format="~g", values=ticks(low, high)))


def tips(rows: list[dict[str, Any]]) -> list[alt.Tooltip]:
    """What is known of the rows."""
    named = [alt.Tooltip(f"{name}:N") for name in ("file", "run")]
    accuracies = {"accuracy": "accuracy, %", "accuracy_low": "from", "accuracy_high": "to"}
    shares = [
        alt.Tooltip(f"{name}:Q", title=said, format=".2f") for name, said in accuracies.items() if name in rows[0]
    ]
    costs = [alt.Tooltip(f"{name}:Q", title=said, format=".3~g") for name, said in TIPS.items() if name in rows[0]]
    return [*named, *shares, *costs]


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every decade, as a person would mark a logarithmic ruler."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    found = [float(f"{step}e{decade}") for decade in decades for step in (1, 2, 5)]
    return [value for value in found if low / ROOM <= value <= high * ROOM]


# ------------------------------------------------------------------------------------- student and control


def seeds(findings: Findings) -> Chart:
    """A line for each seed, from the control to the student."""
    pairs = [
        {"seed": f"seed {seed}", "control": twins.control * 100, "student": twins.student * 100}
        for seed, twins in findings.distilled.seeds.items()
        if twins.control is not None
    ]
    rows = [
        {"seed": pair["seed"], "network": name, "val_accuracy": pair[name]}
        for pair in pairs
        for name in ("control", "student")
    ]
    y = alt.Y("seed:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, grid=False))
    scale, axis = alt.Scale(zero=False, padding=14), alt.Axis(tickCount=6, grid=True)
    lines = (
        alt.Chart(alt.Data(values=pairs))
        .mark_rule(strokeWidth=2.5, color="var(--rule)")
        .encode(y=y, x=alt.X("control:Q", title="val accuracy, %", scale=scale, axis=axis), x2="student:Q")
    )
    tips = ["seed:N", "network:N", alt.Tooltip("val_accuracy:Q", title="val accuracy, %", format=".2f")]
    dots = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=110, opacity=1)
        .encode(y=y, x="val_accuracy:Q", color=colour(), shape=shape(), tooltip=tips)
    )
    description = "Val accuracy of control and student for each seed; the same numbers stand in the table"
    return alt.layer(lines, dots).properties(width="container", height=34 * len(pairs), description=description)


# -------------------------------------------------------------------------------------------------- classes


def confusion(findings: Findings) -> Chart:
    """Only cells that hold a picture are drawn; each is as deep as its share of the actual class."""
    names = findings.classes[findings.classes["network"] == "quantized"]["class"].tolist()
    totals = Counter(findings.confusion["actual"].tolist())
    rows = [
        {
            "actual": actual,
            "predicted": predicted,
            "pictures": count,
            "share": count / totals[actual],
            "colour": "var(--right)" if actual == predicted else "var(--wrong)",
            "depth": (SHALLOWEST if actual == predicted else MISTAKES_STAND_OUT) + 0.3 * count / totals[actual],
        }
        for (actual, predicted), count in pair_counts(findings.confusion).items()
    ]
    step = 30 if len(names) <= COUNTS_FIT else max(7, 720 // len(names))
    axis = alt.Axis(ticks=False, domain=False, labelLimit=90, labelOverlap=len(names) > COUNTS_FIT)
    across = axis.copy()
    across.labelAngle = 0 if max(len(name) for name in names) <= LABEL_FITS else -90
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("predicted:N", scale=alt.Scale(domain=names), title="predicted", axis=across),
        y=alt.Y("actual:N", scale=alt.Scale(domain=names), title="actual", axis=axis),
        tooltip=["actual:N", "predicted:N", "pictures:Q", alt.Tooltip("share:Q", title="of the class", format=".1%")],
    )
    cells = base.mark_rect(stroke="var(--surface)", strokeWidth=1).encode(
        color=alt.Color("colour:N", scale=None), opacity=alt.Opacity("depth:Q", scale=None)
    )
    layers = [cells]
    if len(names) <= COUNTS_FIT:
        layers.append(base.mark_text(color="var(--ink)", fontSize=11).encode(text="pictures:Q"))
    return alt.layer(*layers).properties(
        width=alt.Step(step),
        height=alt.Step(step),
        description="Confusion matrix",
        view=alt.ViewBackground(stroke="var(--rule)"),
    )
