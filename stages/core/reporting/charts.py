"""The page's charts, as Vega-Lite. Colours are CSS variables, so that light, dark and print need no second chart."""

import math
from collections import Counter
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from stages.core.reporting.classes import pair_counts
from stages.core.reporting.findings import NETWORKS, SHIPPED, Findings, Lesson

Specification = dict[str, Any]
Chart = alt.LayerChart | alt.FacetChart  # as altair types what `properties` returns

SHAPES = {"teacher": "square", "control": "diamond", "student": "circle", "pruned": "triangle-up", "quantized": "cross"}
CURVES = {
    "teacher": ("teacher",),
    "distill": ("student", "control"),
    "prune": ("pruned",),
    "quantize": ("quantized",),
}
RUNG = "at"  # widths of the ladder are called at-8, at-6
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
EPOCHS_FIT = 6  # beneath a curve
COUNTS_FIT = 24  # classes; in more, a count has no room in its cell


def everything(findings: Findings, others: list[dict[str, Any]]) -> dict[str, Specification]:
    """`others` are files of other runs."""
    charts = {name: trade_off(*cost, others) for name, cost in costs(findings).items()}
    charts["confusion"] = confusion(findings)
    for name, networks in CURVES.items():
        if not was_taught(findings, networks):
            continue
        points = curve_rows(findings, networks)
        charts[f"{name}-accuracy"] = accuracy_curve(points)
        charts[f"{name}-loss"] = loss_curve(points)
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


# ------------------------------------------------------------------------------------------ learning curves


def curve_rows(findings: Findings, networks: tuple[str, ...]) -> pd.DataFrame:
    """Each epoch, whether it is the one that was kept, and what a network was before its first.

    The members of an ensemble are shown by their mean; every seed of a student has a line of its own.
    """
    rows = findings.curves.assign(network=_base(findings), line=_line(findings))
    rows = (
        rows.loc[rows["network"].isin(networks)]
        .groupby(["network", "line", "epoch"], as_index=False, sort=False)
        .mean(numeric_only=True)
    )
    best = {name: lesson.best_epoch for name, lesson in lessons(findings).items()}
    rows["faint"] = rows["line"] != rows["network"]
    rows["kept"] = [epoch == best.get(line) for line, epoch in zip(rows["line"], rows["epoch"], strict=True)]
    rows["val_accuracy"] *= 100
    starts = [
        {"network": name, "line": name, "epoch": 0.0, "val_accuracy": accuracy * 100, "kept": False, "faint": False}
        for name, accuracy in _begun(findings).items()
        if name in networks
    ]
    return pd.concat([pd.DataFrame(starts), rows], ignore_index=True) if starts else rows


def _begun(findings: Findings) -> dict[str, float]:
    """A network that came down a ladder begins with what it learnt there, which nobody judged."""
    begun = {"pruned": findings.pruned.val_accuracy_before_recovery}
    if RUNG not in set(_base(findings)):
        begun["quantized"] = findings.quantized.val_accuracy_calibrated
    return begun


def lessons(findings: Findings) -> dict[str, Lesson]:
    """Of the first seed, by the network that learnt."""
    found = {
        "teacher": findings.trained,
        "student": findings.distilled.student,
        "control": findings.distilled.control,
        "pruned": findings.pruned,
        "quantized": findings.quantized.recovery,
    }
    return {name: lesson for name, lesson in found.items() if lesson}


def was_taught(findings: Findings, networks: tuple[str, ...]) -> bool:
    """A teacher may come trained, and a network may be left as it was rounded."""
    return bool(_base(findings).isin(networks).any())


def _base(findings: Findings) -> pd.Series:
    """Member 2 of an ensemble is called teacher-2, seed 1 of a student student-1."""
    return findings.curves["network"].str.partition("-")[0]


def _line(findings: Findings) -> list[str]:
    """All members of an ensemble are one."""
    names = zip(_base(findings), findings.curves["network"], strict=True)
    return [base if base == "teacher" else name for base, name in names]


def records(rows: pd.DataFrame, *columns: str) -> alt.Data:
    """Plain values: JSON has no word for a value that is not there, so such rows are left out."""
    return alt.Data(
        values=rows.dropna(subset=list(columns))
        .filter(["network", "line", "faint", "kept", "epoch", *columns])
        .to_dict("records")
    )


def epochs(rows: pd.DataFrame) -> alt.X:
    """Between two epochs is none."""
    told = [int(epoch) for epoch in rows["epoch"].tolist()]
    first, last = min(told), max(told)
    marked = list(range(first, last + 1, max(1, math.ceil((last - first) / EPOCHS_FIT))))
    return alt.X(
        "epoch:Q", title="epoch", scale=alt.Scale(nice=False), axis=alt.Axis(values=marked, format="d", grid=False)
    )


def accuracy_curve(rows: pd.DataFrame) -> Chart:
    base = alt.Chart(records(rows, "val_accuracy")).encode(
        x=epochs(rows),
        y=alt.Y("val_accuracy:Q", title="val accuracy, %", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=colour(),
        detail="line:N",
        tooltip=["line:N", "epoch:Q", alt.Tooltip("val_accuracy:Q", title="val accuracy, %", format=".2f")],
    )
    return _curve(base, "Val accuracy after each epoch")


def loss_curve(rows: pd.DataFrame) -> Chart:
    losses = rows.dropna(subset=["val_loss", "train_loss"])
    lowest, highest = (float(end(losses[["val_loss", "train_loss"]].to_numpy())) for end in (np.min, np.max))
    axis, scale = alt.Axis(tickCount=5, format="~g"), alt.Scale(zero=False)
    if lowest > 0:
        axis = alt.Axis(values=ticks(lowest, highest), format="~g")
        scale = alt.Scale(type="log", domain=[lowest / ROOM, highest * ROOM], nice=False)
    base = alt.Chart(records(rows, "val_loss", "train_loss")).encode(x=epochs(losses), color=colour(), detail="line:N")
    tip = [
        alt.Tooltip("line:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("val_loss:Q", title="val loss", format=".4f"),
        alt.Tooltip("train_loss:Q", title="train loss", format=".4f"),
    ]
    title = "loss (log)" if lowest > 0 else "loss"
    val = base.encode(y=alt.Y("val_loss:Q", title=title, scale=scale, axis=axis), tooltip=tip)
    train = (
        base.transform_filter("!datum.faint")
        .mark_line(strokeWidth=1.5, strokeDash=[3, 3], opacity=0.8)
        .encode(y="train_loss:Q", tooltip=tip)
    )
    return _curve(val, "Loss on val (solid) and train (dashed) after each epoch", train)


def _curve(base: alt.Chart, description: str, *below: alt.Chart) -> Chart:
    lines = base.mark_line(strokeWidth=2).encode(
        opacity=alt.condition("datum.faint", alt.value(FAINT), alt.value(1)),
    )
    kept = base.transform_filter("datum.kept").mark_point(filled=True, size=70, opacity=1)
    touch = base.mark_point(size=160, opacity=0)  # something to point at, everywhere on the line
    return alt.layer(*below, lines, kept, touch).properties(width="container", height=190, description=description)


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
