"""What fewer bits cost, where, and what learning with them brings; in words, rows and columns."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stages.core import params, words
from stages.core.reporting import sheets
from stages.core.reporting.findings import Choice, FewBits, Quantized, Tried
from stages.core.reporting.sheets import Cell, Controlled, Row, Table, row, without_empty_columns

NAMES: Mapping[str, str] = {"float": "floating point", "rounded": "rounded at last"}
NOUNS: Mapping[str, str] = {
    "float": "floating point after as many epochs",
    "rounded": "floating point after as many epochs, and calibration at last",
}
CLAIMS: Mapping[tuple[str, str], str] = {
    ("float", "helps"): "The integers are better than floating point that learnt as long.",
    ("float", "hurts"): "Fewer bits cost accuracy that the same epochs do not bring back.",
    ("float", "not shown"): "Fewer bits may cost accuracy, bring some or do nothing.",
    ("rounded", "helps"): "Learning with the roundings is worth its epochs: rounding after them is not as good.",
    ("rounded", "hurts"): "The epochs do more in floating point, with the rounding after them.",
    ("rounded", "not shown"): "Rounding after the same epochs in floating point may do as well.",
}
CORRECTED: Mapping[str, str] = {"moments": "means and spreads corrected", "bias": "biases corrected", "nothing": ""}
LEVELS = 3  # of ternary weights
INPUT = ".act_quant"  # the end of the name that Brevitas gives a place between layers


# ------------------------------------------------------------------------------------------------ what was asked for


def method(settings: params.Quantization) -> str:
    """As a person would say it."""
    return f"{settings.name}: {METHODS[settings.name](settings)}"


def _integer(settings: params.Integer) -> str:
    own = (f"{name} {bits(width)}" for name, width in settings.layers.items())
    said = (
        f"weights of {_widths(settings.weights)}",
        f"activations of {settings.activations}",
        f"first and last layer {settings.ends}",
        *own,
        f"kept in floating point: {words.listed(list(settings.keep))}" if settings.keep else "",
        f"a scale for each {settings.scales}",
        *_calibration(settings.range, settings.equalize_iterations, settings.correct, settings.zero_points),
        _rounding(settings.rounding),
    )
    return ", ".join(filter(None, said))


def _dynamic(settings: params.DynamicInt8) -> str:
    return f"linear layers alone, a scale for each {settings.scales}"


def _half(_settings: params.Half) -> str:
    return "16 bits stored, computed in float32"


def _float8(settings: params.Float8) -> str:
    return f"{settings.format}, 8 bits stored, a scale for each channel, computed in float32"


def _widths(weights: params.WeightBits | params.Auto) -> str:
    if not isinstance(weights, params.Auto):
        return bits(weights)
    choices, budget = " / ".join(map(str, weights.choices)), weights.budget
    if isinstance(budget, params.Bytes):
        return f"{choices} bits, within {words.whole(budget.at_most)}{words.SPACE}B"
    return f"{choices} bits, as few as cost {words.points(budget.at_most).removeprefix('+')} points on val"


def bits(width: params.WeightBits) -> str:
    return "ternary" if width == "ternary" else words.plural(width, "bit")


def _calibration(reach: params.Range, equalize_iterations: int, correct: str, zero_points: bool) -> list[str]:
    return [
        f"range {_range(reach)}",
        f"channels equalised {words.plural(equalize_iterations, 'time')}" if equalize_iterations else "",
        CORRECTED[correct],
        "" if zero_points else "no zero points",
    ]


def _range(reach: params.Range) -> str:
    return f"percentile {reach.percentile:g}" if reach.name == "percentile" else reach.name


def _rounding(settings: params.Rounding) -> str:
    numbers = settings.model_dump(exclude={"name"})
    told = ", ".join(f"{name} {value}" for name, value in numbers.items())
    return f"rounding {settings.name}{f' ({told})' if told else ''}"


METHODS: Mapping[str, Callable[[Any], str]] = {
    "integer": _integer,
    "dynamic_int8": _dynamic,
    "float16": _half,
    "bfloat16": _half,
    "float8": _float8,
}


def recovery(settings: params.Quantize, found: Quantized) -> str:
    if settings.recovery is None or found.recovery is None:
        return ""
    ladder, told = settings.ladder, [f"{settings.recovery.name}, at most {words.plural(found.budget, 'epoch')} in all"]
    if ladder.weights:
        rungs = words.listed([bits(width) for width in ladder.weights])
        told.append(f"down from {rungs}, {words.plural(ladder.epochs, 'epoch')} each")
    return f"{', '.join(told)}; best epoch {found.recovery.best_epoch} of {found.recovery.epochs}"


# ------------------------------------------------------------------------------------------------------ accuracy on val


def accuracies(found: Quantized) -> Table:
    """Each beside the network in floating point."""
    rounded = "Calibrated" if found.method == "integer" else "Rounded"
    steps = {"In floating point": found.val_accuracy_before, rounded: found.val_accuracy_calibrated}
    if found.recovery:
        steps["Learnt on"] = found.val_accuracy
    rows = [
        row(name, sheets.share(accuracy), sheets.points(accuracy - found.val_accuracy_before) if at else "")
        for at, (name, accuracy) in enumerate(steps.items())
    ]
    return Table("Accuracy on val", "Step", ("Accuracy on val", "Difference, points"), rows)


def against(found: Quantized) -> Controlled:
    return Controlled("quantized", found.seeds, found.against, found.confidence, NAMES, NOUNS, CLAIMS)


# ------------------------------------------------------------------------------------------------------- where bits go


def layers(found: Quantized) -> Table:
    """In network order."""
    rows = [row(name, *_layer(one)) for name, one in found.layers.items()]
    heads = ("Bits", "Weights", "Levels in a channel, at most", "Zeros", "Error, nearest", "Error, chosen")
    return without_empty_columns(Table("Each layer", "Layer", heads, rows))


def _layer(one: FewBits) -> Iterator[Cell]:
    yield sheets.number(math.log2(LEVELS) if one.bits == "ternary" else one.bits, str(one.bits))
    yield from (sheets.count(one.weights), sheets.count(one.levels), sheets.zeros(one.zeros))
    yield from (
        (sheets.share(error) for error in (one.error.nearest, one.error.chosen)) if one.error else (Cell(), Cell())
    )


def flowing(found: Quantized) -> str:
    """Between layers."""
    if not found.flows:
        return ""
    counts = sorted(Counter(found.flows.values()).items(), reverse=True)
    places = [f"{words.plural(bits, 'bit')} at {words.plural(count, 'place')}" for bits, count in counts]
    return f"What flows between layers has {words.listed(places)}."


def flows(found: Quantized) -> list[Table]:
    """Places that are all alike are told by the text."""
    if len(set(found.flows.values())) < 2:
        return []
    rows = [row(name.removesuffix(INPUT), sheets.count(bits)) for name, bits in found.flows.items()]
    return [Table("What flows between layers", "Place", ("Bits",), rows)]


def choices(found: Quantized) -> list[Table]:
    """What each layer bears, and what it got."""
    if not found.choices:
        return []
    widths: list[params.WeightBits] = list(dict.fromkeys(one.bits for one in found.choices))
    tried = {(one.layer, one.bits): _choice(one) for one in found.choices}
    rows = [
        Row(name, "", [*(tried[name, width] for width in widths), Cell(bits(found.layers[name].bits))])
        for name in dict.fromkeys(one.layer for one in found.choices)
    ]
    return [Table("What each layer bears", "Layer", (*map(bits, widths), "Given"), rows)]


def _choice(one: Choice) -> Cell:
    return sheets.share(
        one.val_accuracy, None, None, f"loss {one.val_loss:.4f}", f"{words.whole(one.bytes)}{words.SPACE}B"
    )


# -------------------------------------------------------------------------------------------------- what was looked at


def tried(found: Quantized, taken: params.Quantization) -> list[Table]:
    if not found.tried:
        return []
    rows = [_tried(one, taken) for one in found.tried]
    return [Table("Ways to calibrate", "Way", ("Val accuracy", "Val loss", "Taken"), rows)]


def _tried(one: Tried, taken: params.Quantization) -> Row:
    way = one.way
    said = _calibration(way.range, way.equalize_iterations, way.correct, way.zero_points)
    chosen = all(value == getattr(taken, name) for name, value in way)
    loss = sheets.number(one.val_loss, f"{one.val_loss:.4f}")
    return row(", ".join(filter(None, said)), sheets.share(one.val_accuracy), loss, "taken" * chosen)


def scan(found: Quantized) -> list[Table]:
    """The worst places first."""
    rows = [
        row(
            place.removesuffix(INPUT),
            "weights" if place in found.layers else "what flows",
            sheets.share(accuracy),
            sheets.points(accuracy - found.val_accuracy_before),
        )
        for place, accuracy in sorted(found.alone.items(), key=lambda one: one[1])
    ]
    heads = ("Rounded", "Val accuracy", "Difference, points")
    return [Table("Where accuracy is lost", "Place", heads, rows)] if rows else []
