"""How far the networks' confidence is to be believed, what spoils their answers, and for whom; in rows and columns."""

from collections.abc import Mapping
from typing import Any

from stages.core import words
from stages.core.reporting import sheets
from stages.core.reporting.findings import Findings
from stages.core.reporting.sheets import Cell, Row, Table


def reliability(found: Findings) -> Table:
    """Bins without pictures have no row."""
    bins = found.reliability.to_dict("records")
    rows = [Row(name, "", _bin(one)) for name in found.networks for one in bins if one["network"] == name]
    heads = ("Confidence from", "To", "Pictures", "Mean confidence", "Accuracy")
    note = (
        "A network that knows how sure it may be is right as often as it is confident: its dots lie on the diagonal. "
        f"In brackets {_level(found)} intervals (Wilson): bins of few pictures say little."
    )
    return Table("Reliability", "Network", heads, rows, note)


def _bin(one: Mapping[Any, Any]) -> list[Cell]:
    return [
        sheets.number(one["from"], f"{one['from']:.3g}"),
        sheets.number(one["to"], f"{one['to']:.3g}"),
        sheets.count(int(one["pictures"])),
        sheets.share(one["confidence"]),
        sheets.share(one["accuracy"], one["accuracy_low"], one["accuracy_high"]),
    ]


def robustness(found: Findings) -> list[Table]:
    """A row for each kind and severity, a column for each network; severity 0 is the picture as it is."""
    rows = found.robustness
    if rows.empty:
        return []
    places = rows[["kind", "severity", "amount"]].drop_duplicates().itertuples(index=False, name=None)
    told = {(one["network"], one["kind"], one["severity"]): _accuracy(one) for one in rows.to_dict("records")}
    lines: list[Row] = []
    for kind, severity, amount in places:
        how_much = sheets.number(amount, f"{amount:g}") if severity else sheets.absent("untouched")
        accuracies = (told.get((name, kind, severity), Cell()) for name in found.networks)
        lines.append(Row(words.spelt(str(kind)), "", [sheets.count(int(severity)), how_much, *accuracies]))
    note = f"Accuracy on spoilt test pictures, {_level(found)} intervals (Wilson); severity 0 is the picture as it is."
    return [Table("Robustness", "Spoilt by", ("Severity", "Amount", *found.networks), lines, note)]


def means(found: Findings) -> list[Table]:
    """Over the severities of each kind, and over the kinds."""
    judged = {name: getattr(found.evaluated, name) for name in found.networks}
    kinds = list(dict.fromkeys(kind for one in judged.values() for kind in one.robustness))
    if not kinds:
        return []
    rows = [
        Row(
            name,
            "",
            [
                sheets.share(one.accuracy, one.accuracy_low, one.accuracy_high),
                *(sheets.share(one.robustness[kind]) if kind in one.robustness else Cell() for kind in kinds),
                sheets.share(one.robustness_mean) if one.robustness_mean is not None else Cell(quiet="not measured"),
            ],
        )
        for name, one in judged.items()
    ]
    return [Table("Robustness in the mean", "Network", ("Untouched", *map(words.heading, kinds), "Mean"), rows)]


def subgroups(found: Findings) -> list[Table]:
    """Groups beside each other, a column for each network."""
    rows = found.subgroups
    if rows.empty:
        return []
    told = {(one["network"], one["column"], one["group"]): one for one in rows.to_dict("records")}
    groups = {(column, group): one["pictures"] for (_, column, group), one in told.items()}
    lines: list[Row] = []
    for (column, group), pictures in groups.items():
        judged = (told.get((name, column, group)) for name in found.networks)
        accuracies = [_accuracy(one) if one else Cell() for one in judged]
        lines.append(Row(str(group), "", [Cell(str(column)), sheets.count(int(pictures)), *accuracies]))
    note = f"Accuracy on the test pictures of each group, {_level(found)} intervals (Wilson), not corrected for many."
    return [Table("Subgroups", "Group", ("Of", "Pictures", *found.networks), lines, note)]


def _accuracy(one: Mapping[Any, Any]) -> Cell:
    return sheets.share(one["accuracy"], one["accuracy_low"], one["accuracy_high"])


def _level(found: Findings) -> str:
    return words.level(found.evaluated.confidence)
