"""How networks learnt, epoch by epoch."""

import math

import altair as alt
import numpy as np
import pandas as pd

from stages.core.reporting.charts import FAINT, ROOM, Chart, Specification, colour, specification, ticks
from stages.core.reporting.findings import Findings, Lesson

CURVES = {
    "teacher": ("teacher",),
    "distill": ("student", "control"),
    "prune": ("pruned",),
    "quantize": ("quantized",),
}
RUNG = "at"  # widths of the ladder are called at-8, at-6
EPOCHS_FIT = 6  # beneath a curve


def everything(findings: Findings) -> dict[str, Specification]:
    charts: dict[str, Chart] = {}
    for name, networks in CURVES.items():
        if not was_taught(findings, networks):
            continue
        points = curve_rows(findings, networks)
        charts[f"{name}-accuracy"] = accuracy_curve(points)
        charts[f"{name}-loss"] = loss_curve(points)
    return {name: specification(chart) for name, chart in charts.items()}


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
