"""What each layer lost, and what it could bear to lose."""

from collections.abc import Mapping

import altair as alt

from stages.core.reporting.charts import Chart, Specification, specification
from stages.core.reporting.findings import Findings

BAR, LINE = 20, 18  # pixels of a layer
LABEL = 150
DEEPEST = 0.9  # opacity where most accuracy is lost


def everything(findings: Findings) -> dict[str, Specification]:
    drawn = {"channels": channels(findings)}
    if findings.pruned.zeros > 0:
        drawn["zeros"] = zeros(findings)
    if len(findings.sensitivity):
        drawn["sensitivity"] = sensitivity(findings)
    return {name: specification(chart) for name, chart in drawn.items()}


def channels(findings: Findings) -> Chart:
    """Shares, so that a narrow layer is seen as well as a wide one; the numbers stand beside them."""
    widths = findings.pruned.channels
    shares = {name: width.after / width.before for name, width in widths.items()}
    texts = {name: f"{width.after:,} of {width.before:,}" for name, width in widths.items()}
    return _by_layer(shares, texts, "channels kept, %", "Share of its channels that each layer kept")


def zeros(findings: Findings) -> Chart:
    shares = findings.pruned.zeros_by_layer
    texts = {name: f"{share:.1%}" for name, share in shares.items()}
    return _by_layer(shares, texts, "weights that are zero, %", "Share of zeros among the weights of each layer")


def _by_layer(shares: Mapping[str, float], texts: Mapping[str, str], title: str, description: str) -> Chart:
    """Bars from nothing to all, in network order."""
    rows = [{"layer": name, "percent": share * 100, "all": 100, "text": texts[name]} for name, share in shares.items()]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("layer:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=LABEL)),
        tooltip=["layer:N", alt.Tooltip("percent:Q", title=title, format=".1f"), alt.Tooltip("text:N", title=" ")],
    )
    across = alt.X(
        "percent:Q",
        title=title,
        scale=alt.Scale(domain=[0, 100]),
        axis=alt.Axis(orient="top", values=[0, 25, 50, 75, 100]),
    )
    whole = base.mark_bar(color="var(--rule)", height={"band": 0.62}).encode(x="all:Q")
    part = base.mark_bar(color="var(--pruned)", height={"band": 0.62}).encode(x=across)
    beside = base.mark_text(align="left", dx=6, fontSize=11, color="var(--muted)").encode(x="all:Q", text="text:N")
    return alt.layer(whole, part, beside).properties(width="container", height=BAR * len(rows), description=description)


def sensitivity(findings: Findings) -> Chart:
    """A layer that nothing may be taken from glows; with nothing gone all of them are alike, and not drawn."""
    scan = findings.sensitivity.assign(percent=findings.sensitivity["val_accuracy"] * 100)
    scan["gone"] = scan["share"] * 100
    lost = scan["percent"].max() - scan["percent"]
    scan["depth"] = DEEPEST * lost / (lost.max() or 1)
    tried = scan.loc[scan["share"] > 0].filter(["layer", "gone", "percent", "val_loss", "depth"])
    layers = list(dict.fromkeys(tried["layer"]))
    axis = alt.Axis(ticks=False, domain=False, grid=False, labelLimit=LABEL)
    above = axis.copy()
    above.orient, above.labelAngle = "top", 0
    cells = (
        alt.Chart(alt.Data(values=tried.to_dict("records")))
        .mark_rect(stroke="var(--surface)", strokeWidth=1.5, color="var(--wrong)")
        .encode(
            x=alt.X("gone:O", title="gone from this layer alone, %", axis=above),
            y=alt.Y("layer:N", sort=layers, title=None, axis=axis),
            opacity=alt.Opacity("depth:Q", scale=None),
            tooltip=[
                "layer:N",
                alt.Tooltip("gone:Q", title="gone, %", format="~g"),
                alt.Tooltip("percent:Q", title="val accuracy, %", format=".2f"),
                alt.Tooltip("val_loss:Q", title="val loss", format=".4f"),
            ],
        )
    )
    description = "Val accuracy of each layer alone at each share; the same numbers stand in the table"
    return alt.layer(cells).properties(
        width="container",
        height=LINE * len(layers),
        description=description,
        view=alt.ViewBackground(stroke="var(--rule)"),
    )
