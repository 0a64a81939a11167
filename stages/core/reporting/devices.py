"""Which file for which device, and every file that other runtimes take; in rows and columns."""

from collections.abc import Sequence

from stages.core import choosing, devices, params, words
from stages.core.devices import Advice, Measured
from stages.core.reporting import sheets, speed
from stages.core.reporting.findings import Converted, Findings, Made
from stages.core.reporting.sheets import Cell, Row, Table


def advise(found: Findings, budget: params.Budget) -> list[Advice]:
    measured, exported, converted = (
        one.model_dump(by_alias=True, exclude_none=True) for one in (found.benchmarked, found.exported, found.converted)
    )
    machine = measured["machine"]
    files = devices.candidates(choosing.candidates(measured, exported), converted, machine)
    saturates = found.exported.quantized.saturates > 0
    return devices.advise(files, budget, machine, saturates, found.devices)


def advice(found: Sequence[Advice]) -> Table:
    rows = [Row(one.kind.title, "", _advised(one)) for one in found]
    heads = ("File", "Bytes", "Accuracy on val", "Why this one")
    return Table("Which file for which device", "Device", heads, rows)


def _advised(one: Advice) -> list[Cell]:
    if one.taken is None:
        return [sheets.absent("none"), Cell(), Cell(), Cell(one.reason)]
    warning = "" if one.keeps else "beyond the budget"
    return [
        Cell(one.taken.name, warning=warning),
        sheets.count(one.taken.bytes),
        sheets.share(one.taken.accuracy),
        Cell(one.reason),
    ]


def targets(found: Converted) -> list[Table]:
    """What was skipped is told beside what was made."""
    if not found.targets:
        return []
    rows = [
        Row(name, "", _made(target) if isinstance(target, Made) else [*[Cell()] * 6, sheets.absent(target.why)])
        for name, target in found.targets.items()
    ]
    heads = ("Bytes", "Accuracy on val", "Against its network, points", "Same answer", "Largest logit difference")
    note = (
        f"Each file, run by its own runtime in a fresh process on {words.plural(found.pictures, 'picture')} of val, "
        f"beside the network that it was made of; {words.level(found.confidence)} intervals. Latency is of one picture "
        "at one thread, here."
    )
    return [Table("Files for other runtimes", "Target", (*heads, "Latency here", "What it is"), rows, note)]


def _made(one: Made) -> list[Cell]:
    details = [f"of {one.of}", one.runtime]
    if one.delegated is not None:
        details.append(f"{words.percent(one.delegated)} delegated")
    if one.transposes:
        details.append(words.plural(one.transposes, "transpose"))
    return [
        sheets.count(one.bytes),
        sheets.share(one.accuracy),
        sheets.points(-one.accuracy_drop, -one.drop_high, -one.drop_low),
        sheets.share(one.agreement),
        sheets.number(one.largest_difference, words.tiny(one.largest_difference)),
        speed.milliseconds(one.milliseconds, one.milliseconds_low, one.milliseconds_high),
        Cell(one.kind, tuple(details)),
    ]


def measured(found: Sequence[Measured]) -> list[Table]:
    """What a bundle's benchmark wrote on the devices themselves."""
    rows = [
        Row(f"{one.device}: {name}", one.system, _measured(one, facts))
        for one in found
        for name, facts in one.files.items()
    ]
    heads = ("Bytes", "One thread", "All threads", "Same answer as here")
    note = "By the benchmark of a bundle, on the device; of the pictures that lie in the bundle."
    return [Table("Measured on devices", "Device and file", heads, rows, note)] if rows else []


def _measured(one: Measured, facts: devices.Facts) -> list[Cell]:
    agreement = sheets.absent("not compared") if one.agreement is None else sheets.share(one.agreement)
    return [sheets.count(facts["bytes"]), _time(facts["one_thread"]), _time(facts["all_threads"]), agreement]


def _time(timing: devices.Facts) -> Cell:
    noisy = "noisy" if timing.get("noisy") else ""
    return speed.milliseconds(timing["median"], timing["low"], timing["high"], warning=noisy)
