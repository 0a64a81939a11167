"""What the files cost where they were measured, in rows and columns."""

from collections.abc import Iterator

from stages.core import words
from stages.core.reporting import comparison, sheets
from stages.core.reporting.findings import PORTABLE, SHIPPED, Benchmarked, Drift, File, Joules, Timing, Ways
from stages.core.reporting.sheets import Cell, Row, Table

REFERENCE = sheets.absent("reference")
NOISY = "the interval is too wide to rank files that are close"
TAIL = "95th percentile"


def files(found: Benchmarked) -> dict[str, File]:
    """The portable one last, where there is one."""
    shipped = {name: getattr(found.files, name) for name in SHIPPED}
    return shipped | ({PORTABLE: found.files.portable} if found.files.portable else {})


def time(timing: Timing) -> Cell:
    return milliseconds(timing.median, timing.low, timing.high, warning="noisy" if timing.noisy else "")


def milliseconds(median: float, low: float, high: float, *details: str, warning: str = "") -> Cell:
    said = (f"{words.milliseconds(median)}{words.SPACE}ms", (_spread(low, high), *details), warning)
    return Cell(*said, value=median, low=low, high=high)


def _spread(low: float, high: float) -> str:
    return f"[{words.milliseconds(low)},{words.SPACE}{words.milliseconds(high)}]"


def faster(timing: Timing) -> Cell:
    spread = f"[{timing.times_faster_low:.2f},{words.SPACE}{timing.times_faster_high:.2f}]"
    said = words.faster(timing.times_faster)
    return Cell(said, (spread,), value=timing.times_faster, low=timing.times_faster_low, high=timing.times_faster_high)


def energy(joules: Joules | None) -> Cell:
    if joules is None:
        return sheets.absent("not measured")
    per, low, high = (words.milliseconds(value * 1e3) for value in (joules.per_picture, joules.low, joules.high))
    spread = f"[{low},{words.SPACE}{high}]"
    return Cell(f"{per}{words.SPACE}mJ", (spread,), value=joules.per_picture, low=joules.low, high=joules.high)


def latency(found: Benchmarked) -> Table:
    """One picture at a time."""
    rows = [Row(name, "", list(_latency(name, file, found))) for name, file in files(found).items()]
    gains = ("Times faster, one thread", "All threads")
    spent = ("Energy",) if found.energy.source else ()
    heads = ("One thread", "All threads", *gains, "Loading", "Memory", *spent)
    note = (
        f"Of the files, one picture at a time: medians with {words.level(found.confidence)} intervals. Loading and "
        "memory are those of fresh processes; memory is the peak, and what of it is beyond ONNX Runtime's own."
    )
    if not found.energy.source:
        note = f"{note} Energy: {words.sentence(found.energy.why)}"
    return Table("Latency, memory and energy", "File", heads, rows, note)


def _latency(name: str, file: File, found: Benchmarked) -> Iterator[Cell]:
    threads = file.one_thread, file.all_threads
    yield from (time(timing) for timing in threads)
    yield from (REFERENCE if name == "teacher" else faster(timing) for timing in threads)
    yield milliseconds(file.load.median, file.load.low, file.load.high, f"p95 {words.milliseconds(file.load.p95)}")
    yield _memory(file)
    if found.energy.source:
        yield energy(file.joules)


def _memory(file: File) -> Cell:
    found = file.memory
    spread = f"[{words.megabytes(found.low)},{words.SPACE}{words.megabytes(found.high)}]"
    over = f"{words.megabytes(found.over_runtime_bytes)} of its own"
    return Cell(
        words.megabytes(found.peak_bytes), (spread, over), value=found.peak_bytes, low=found.low, high=found.high
    )


def details(found: Benchmarked) -> Table:
    """Every file at every batch."""
    rows = [
        Row(name, "", [Cell(said), *_details(timing, batch)])
        for name, file in files(found).items()
        for said, batch, timing in _measured(file)
    ]
    heads = ("Threads", "Batch", "Median", TAIL, "Pictures a second", "Against the teacher", "Calls", "Drift")
    note = (
        f"Milliseconds of one call, with {words.level(found.confidence)} intervals over rounds of fresh processes, "
        f"taken in turns. Noisy: {NOISY}. Drift: the change from first to last round, where it is more than chance."
    )
    return Table("Every measurement", "File", heads, rows, note)


def _measured(file: File) -> Iterator[tuple[str, int, Timing]]:
    batches: dict[str, Ways] = {"1": file, **file.batches}
    for batch, ways in batches.items():
        yield "one", int(batch), ways.one_thread
        yield "all", int(batch), ways.all_threads
        if ways.gpu:
            yield "GPU", int(batch), ways.gpu


def _details(timing: Timing, batch: int) -> Iterator[Cell]:
    yield sheets.count(batch)
    yield time(timing)
    yield milliseconds(timing.p95, timing.p95_low, timing.p95_high)
    yield sheets.count(round(timing.pictures_per_second))
    yield faster(timing)
    yield sheets.count(timing.calls, words.plural(timing.rounds, "round"))
    yield _drift(timing.drift)


def _drift(drift: Drift) -> Cell:
    """A share of the median."""
    said = f"{words.sign(drift.share)}{words.percent(abs(drift.share))}"
    if drift.found:
        return Cell(said, (comparison.chance(drift.p),), "found", value=drift.share)
    return Cell("", quiet="none found", value=drift.share)


def told(found: Benchmarked) -> list[str]:
    """What was measured of energy and on a GPU, or why not."""
    energy, gpu = found.energy, found.gpu
    return [f"Energy: {energy.source or energy.why}", f"GPU: {gpu.name or gpu.why}"]


def noise(found: Benchmarked) -> str:
    """Which timings should not be trusted to the last digit."""
    noisy = [name for name in SHIPPED if getattr(found.files, name).one_thread.noisy]
    return f"Noisy timing of {words.listed(noisy)} on one thread: {NOISY}." if noisy else ""
