"""What each layer lost, and what it could bear to lose."""

import altair as alt

from stages.core.reporting import layer_charts
from stages.core.reporting.charts import Chart, Specification, specification
from stages.core.reporting.findings import Findings


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
    return layer_charts.shares(shares, texts, "channels kept, %", "Share of its channels that each layer kept")


def zeros(findings: Findings) -> Chart:
    shares = findings.pruned.zeros_by_layer
    texts = {name: f"{share:.1%}" for name, share in shares.items()}
    description = "Share of zeros among the weights of each layer"
    return layer_charts.shares(shares, texts, "weights that are zero, %", description)


def sensitivity(findings: Findings) -> Chart:
    """A layer that nothing may be taken from glows; with nothing gone all of them are alike, and not drawn."""
    scan = findings.sensitivity.assign(percent=findings.sensitivity["val_accuracy"] * 100)
    scan["gone"] = scan["share"] * 100
    lost = scan["percent"].max() - scan["percent"]
    scan["depth"] = layer_charts.depths(lost.tolist())
    tried = scan.loc[scan["share"] > 0].filter(["layer", "gone", "percent", "val_loss", "depth"])
    tips = [
        alt.Tooltip("gone:Q", title="gone, %", format="~g"),
        alt.Tooltip("percent:Q", title="val accuracy, %", format=".2f"),
        alt.Tooltip("val_loss:Q", title="val loss", format=".4f"),
    ]
    description = "Val accuracy of each layer alone at each share; the same numbers stand in the table"
    across = alt.X("gone:O", title="gone from this layer alone, %")
    return layer_charts.heat_map(tried.to_dict("records"), across, tips, description)
