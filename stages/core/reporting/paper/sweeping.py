"""What sweeps and ablations found, as tables: the page's words, with the numbers behind them."""

from collections.abc import Iterator, Mapping

from stages.core.reporting import sweeps
from stages.core.reporting.sheets import Cell, Row, Table
from stages.core.reporting.sweeps import Comparison, Pair, Series, Sweep

SUMMARY = ("n", "Mean", "sd", "t interval", "Bootstrap", "Said")


def tables(found: Mapping[str, Sweep]) -> dict[str, Table]:
    """Named as their charts are."""
    return {name: table for sweep, told in found.items() for name, table in _tables(f"sweep-{sweep}", told)}


def _tables(name: str, sweep: Sweep) -> Iterator[tuple[str, Table]]:
    for at, one in enumerate(sweep.comparisons):
        title = f"{sweep.title}: {one.metric}"
        yield f"{name}-{at}", Table(title, "Network", SUMMARY, [_series(series, one) for series in one.series])
        if one.pairs:
            heads, rows = (*sweeps.DECIDED, *sweeps.TESTED), [_pair(pair, one) for pair in one.pairs]
            note = sweeps.caption(one, sweep)
            yield f"{name}-{at}-differences", Table(f"{title}, differences", "Pair", heads, rows, note)


def _series(found: Series, one: Comparison) -> Row:
    numbers = (found.n, found.mean, found.sd, None, None, None)
    cells = [Cell(said, value=number) for said, number in zip(sweeps.summary(found, one), numbers, strict=True)]
    ends = {3: (found.low, found.high), 4: (found.bootstrap_low, found.bootstrap_high)}
    for at, (low, high) in ends.items():
        cells[at] = Cell(cells[at].text, value=None if low is None else found.mean, low=low, high=high)
    return Row(found.name, "", cells)


def _pair(found: Pair, one: Comparison) -> Row:
    """The last number is told in words alone: seeds for a difference, and for a margin."""
    said = [*sweeps.decided(found, one), *sweeps.tested(found, one)]
    tests = (found.p, found.p_holm, found.p_wilcoxon, found.d, found.p_equivalent_holm)
    numbers = (found.n, found.difference, None, None, *tests, None)
    cells = [Cell(text, value=number) for text, number in zip(said, numbers, strict=True)]
    cells[2] = Cell(said[2], value=found.difference, low=found.low, high=found.high)
    return Row(sweeps.named(found), "", cells)
