"""Where the bytes are, and what each layer bears."""

import math

import altair as alt

from stages.core import params
from stages.core.reporting import layer_charts
from stages.core.reporting.charts import Chart, Specification, specification
from stages.core.reporting.findings import Findings
from stages.core.reporting.quantization import bits as told

TERNARY = 2  # bits that a code of three levels takes


def everything(findings: Findings) -> dict[str, Specification]:
    drawn = {"codes": codes(findings)}
    if findings.quantized.choices:
        drawn["choices"] = choices(findings)
    return {name: specification(chart) for name, chart in drawn.items()}


def codes(findings: Findings) -> Chart:
    found = findings.quantized.layers
    sizes = {name: one.weights * _width(one.bits) / 8 for name, one in found.items()}
    texts = {name: told(one.bits) for name, one in found.items()}
    return layer_charts.amounts(sizes, texts, "bytes of all codes", "Bytes of the codes of each layer, zeros counted")


def _width(bits: params.WeightBits) -> int:
    return TERNARY if bits == "ternary" else bits


def choices(findings: Findings) -> Chart:
    """Losses, since bits are given by them; their roots, or one that bears nothing would leave the others pale."""
    found = findings.quantized.choices
    least = min(one.val_loss for one in found)
    depths = layer_charts.depths([math.sqrt(one.val_loss - least) for one in found])
    rows = [
        {
            "layer": one.layer,
            "width": told(one.bits),
            "percent": one.val_accuracy * 100,
            "val_loss": one.val_loss,
            "bytes": one.bytes,
            "depth": depth,
            "given": findings.quantized.layers[one.layer].bits == one.bits,
        }
        for one, depth in zip(found, depths, strict=True)
    ]
    tips = [
        alt.Tooltip("width:N", title="width"),
        alt.Tooltip("percent:Q", title="val accuracy, %", format=".2f"),
        alt.Tooltip("val_loss:Q", title="val loss", format=".4f"),
        alt.Tooltip("bytes:Q", title="bytes", format=","),
    ]
    description = "Val loss of each layer alone at each width; the same numbers stand in the table"
    across = alt.X("width:O", title="width of this layer alone", sort=None)
    return layer_charts.heat_map(rows, across, tips, description)
