"""How far confidence is to be believed, and what spoils answers."""

import altair as alt

from stages.core import words
from stages.core.reporting.charts import Chart, Specification, colour, specification
from stages.core.reporting.findings import Findings

ROOM = 2  # points beside the lowest and the highest interval


def everything(findings: Findings) -> dict[str, Specification]:
    drawn = {f"reliability-{name}": reliability(findings, name) for name in findings.networks}
    drawn |= {f"robustness-{kind}": robustness(findings, kind) for kind in kinds(findings)}
    return {name: specification(chart) for name, chart in drawn.items()}


def kinds(findings: Findings) -> list[str]:
    return list(dict.fromkeys(findings.robustness["kind"].tolist()))


def reliability(findings: Findings, network: str) -> Chart:
    """One network; the area of a dot is its share of the pictures."""
    found = findings.reliability[findings.reliability["network"] == network]
    percents = {name: found[name] * 100 for name in ("confidence", "accuracy", "accuracy_low", "accuracy_high")}
    rows = found.assign(**percents, share=found["pictures"] / found["pictures"].max()).to_dict("records")
    scale, axis = alt.Scale(domain=[0, 100]), alt.Axis(values=[0, 25, 50, 75, 100])
    x = alt.X("confidence:Q", title="confidence, %", scale=scale, axis=axis)
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=colour())
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
        y=alt.Y("accuracy_low:Q", title="accuracy, %", scale=scale, axis=axis), y2="accuracy_high:Q"
    )
    tips = [
        alt.Tooltip("pictures:Q", format=","),
        alt.Tooltip("confidence:Q", title="confidence, %", format=".1f"),
        alt.Tooltip("accuracy:Q", title="accuracy, %", format=".1f"),
        alt.Tooltip("accuracy_low:Q", title="from", format=".1f"),
        alt.Tooltip("accuracy_high:Q", title="to", format=".1f"),
    ]
    size = alt.Size("share:Q", scale=alt.Scale(domain=[0, 1], range=[12, 220]), legend=None)
    dots = base.mark_point(filled=True, opacity=1).encode(y="accuracy:Q", size=size, tooltip=tips)
    ends = alt.Data(values=[{"confidence": end, "accuracy": end} for end in (0, 100)])
    diagonal = alt.Chart(ends).mark_line(color="var(--muted)", strokeDash=[3, 3], strokeWidth=1)
    description = f"Accuracy of {network} at each confidence; the same numbers stand in the table"
    layers = [diagonal.encode(x="confidence:Q", y="accuracy:Q"), bars, dots]
    return alt.layer(*layers).properties(width="container", height=200, description=description)


def robustness(findings: Findings, kind: str) -> Chart:
    """All kinds have one scale, so that they can be compared."""
    percents = {name: findings.robustness[name] * 100 for name in ("accuracy", "accuracy_low", "accuracy_high")}
    every = findings.robustness.assign(**percents)
    lowest, highest = min(every["accuracy_low"].tolist()), max(every["accuracy_high"].tolist())
    scale = alt.Scale(domain=[max(0, lowest - ROOM), min(100, highest + ROOM)], nice=False)
    rows = every.loc[every["kind"] == kind].to_dict("records")
    severities = sorted(set(every["severity"].tolist()))
    x = alt.X("severity:Q", title="severity", axis=alt.Axis(values=severities, format="d", grid=False))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=colour(), detail="network:N")
    tips = [
        alt.Tooltip("network:N"),
        alt.Tooltip("severity:Q"),
        alt.Tooltip("amount:Q", format="~g"),
        alt.Tooltip("accuracy:Q", title="accuracy, %", format=".1f"),
        alt.Tooltip("accuracy_low:Q", title="from", format=".1f"),
        alt.Tooltip("accuracy_high:Q", title="to", format=".1f"),
    ]
    y = alt.Y("accuracy:Q", title="accuracy on test, %", scale=scale, axis=alt.Axis(tickCount=5))
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.3).encode(
        y=alt.Y("accuracy_low:Q", scale=scale, title="accuracy on test, %"), y2="accuracy_high:Q"
    )
    lines = base.mark_line(strokeWidth=2, point={"size": 36}).encode(y=y, tooltip=tips)
    description = f"Accuracy on test pictures spoilt by {words.spelt(kind)}; the same numbers stand in the table"
    return alt.layer(bars, lines).properties(width="container", height=190, description=description)
