"""Which file the budget asks for, limit by limit; val chooses, test is told."""

from dataclasses import dataclass

from stages.core import choosing, params, words
from stages.core.choosing import Candidate, Limit, Line
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
    reason = _why(budget, kept, len(files)) + _smaller(files, taken, budget) if best else _why_not(taken, budget)
    return Recommendation(
        taken.name, best is not None, reason, choosing.judge(taken, budget), _table(files, budget, taken)
    )


def _why(budget: params.Budget, kept: int, count: int) -> str:
    """The rule, as `choosing.best` goes by it."""
    if not choosing.limited(budget):
        return f"The budget sets no limit: of {count} files, this is the most accurate on val. Test chose nothing."
    if kept == 1:
        return f"Of {count} files this is the only one that keeps to the budget. Test chose nothing."
    enough = budget.accuracy is not None or budget.drop is not None
    rank = "the smallest" if enough else "the most accurate on val"
    how_many = f"All {count} files" if kept == count else f"Of {count} files {kept}"
    return f"{how_many} keep to the budget, and this is {rank} of them. Test chose nothing."


def _smaller(files: list[Candidate], taken: Candidate, budget: params.Budget) -> str:
    """Why not the smallest file."""
    smallest = min(files, key=lambda file: file.bytes)
    missed = [line.said for line in choosing.judge(smallest, budget) if not line.passed]
    if smallest == taken or not missed:
        return ""
    return f" {smallest.name}.onnx is {words.smaller(taken.bytes / smallest.bytes)} yet, but {'; '.join(missed)}."


def _why_not(taken: Candidate, budget: params.Budget) -> str:
    missed = "; ".join(line.said for line in choosing.judge(taken, budget) if not line.passed)
    return f"No file keeps to the budget. {taken.name}.onnx comes nearest: {missed}."


def _table(files: list[Candidate], budget: params.Budget, taken: Candidate) -> Table:
    """Files beside each other, with what each limit says of them; what was not measured nor limited has no column."""
    limits = choosing.limited(budget)
    rules = {
        name: rule
        for name, rule in choosing.LIMITS.items()
        if name in limits or any(rule.found(file) is not None for file in files)
    }
    heads = [words.heading(f"{rule.title}{_limit(rule, limits.get(name))}") for name, rule in rules.items()]
    rows = [
        Row(
            f"{file.name}.onnx",
            "",
            [
                *(_cell(rule, file, limits.get(name)) for name, rule in rules.items()),
                Cell(_choice(file, budget, taken)),
            ],
        )
        for file in files
    ]
    return Table("Files and the budget", "File", (*heads, "Choice"), rows)


def _choice(file: Candidate, budget: params.Budget, taken: Candidate) -> str:
    if file != taken:
        return ""
    return "chosen" if choosing.passes(file, budget) else "nearest"


def _limit(rule: Limit, limit: float | None) -> str:
    return "" if limit is None else f", at {'least' if rule.least else 'most'} {rule.told(limit)}"


def _cell(rule: Limit, file: Candidate, limit: float | None) -> Cell:
    found = rule.found(file)
    told = "not measurable here" if found is None else rule.judged(found, limit)
    if limit is None:
        return Cell(told, value=found)
    if found is not None and rule.beyond(limit, found) == 0:
        return Cell(told, ("passes",), value=found)
    return Cell(told, warning="fails", value=found)
