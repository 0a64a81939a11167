"""Which file the budget asks for, limit by limit; val chooses, test is told."""

from dataclasses import dataclass

from stages.core import choosing, params
from stages.core.choosing import Candidate, Line
from stages.core.reporting.findings import Findings
from stages.core.reporting.sheets import Cell, Row, Table


@dataclass(frozen=True)
class Recommendation:
    """Where no file keeps to every limit, `name` is the one that comes nearest."""

    name: str
    keeps: bool
    reason: str
    lines: list[Line]
    table: Table


def recommend(found: Findings, budget: params.Budget) -> Recommendation:
    measured, exported = (
        one.model_dump(by_alias=True, exclude_none=True) for one in (found.benchmarked, found.exported)
    )
    files = choosing.candidates(measured, exported)
    best = choosing.best(files, budget)
    taken = best or choosing.nearest(files, budget)
    kept = sum(choosing.passes(file, budget) for file in files)
    reason = _why(budget, kept, len(files)) if best else _why_not(taken, budget)
    return Recommendation(
        taken.name, best is not None, reason, choosing.judge(taken, budget), _table(files, budget, taken)
    )


def _why(budget: params.Budget, kept: int, count: int) -> str:
    """The rule, as `choosing.best` goes by it."""
    if not choosing.limited(budget):
        return (
            f"The budget sets no limit: of {count} files, this is the most accurate on val, and the smallest of those."
        )
    enough = budget.accuracy is not None or budget.drop is not None
    rank = "the smallest" if enough else "the most accurate on val"
    return f"Of {count} files {kept} keep to the budget, and this is {rank} of them. Test chose nothing."


def _why_not(taken: Candidate, budget: params.Budget) -> str:
    missed = "; ".join(line.said for line in choosing.judge(taken, budget) if not line.passed)
    return f"No file keeps to the budget. {taken.name}.onnx comes nearest: {missed}."


def _table(files: list[Candidate], budget: params.Budget, taken: Candidate) -> Table:
    """Files beside each other, with what each limit says of them."""
    limits = choosing.limited(budget)
    heads = [f"{rule.title}{_limit(name, limits)}".capitalize() for name, rule in choosing.LIMITS.items()]
    rows = [Row(f"{file.name}.onnx", "", [*_cells(file, budget), Cell(_choice(file, budget, taken))]) for file in files]
    return Table("Files and the budget", "File", (*heads, "Choice"), rows)


def _choice(file: Candidate, budget: params.Budget, taken: Candidate) -> str:
    if file != taken:
        return ""
    return "chosen" if choosing.passes(file, budget) else "nearest"


def _limit(name: str, limits: dict[str, float]) -> str:
    if name not in limits:
        return ""
    rule = choosing.LIMITS[name]
    return f", at {'least' if rule.least else 'most'} {rule.told(limits[name])}"


def _cells(file: Candidate, budget: params.Budget) -> list[Cell]:
    passed = {line.name: line.passed for line in choosing.judge(file, budget)}
    cells: list[Cell] = []
    for name, rule in choosing.LIMITS.items():
        found = rule.found(file)
        told = "not measurable here" if found is None else rule.told(found)
        verdict = {True: ("passes", ""), False: ("", "fails"), None: ("", "")}[passed.get(name)]
        cells.append(Cell(told, tuple(filter(None, verdict[:1])), verdict[1], value=found))
    return cells
