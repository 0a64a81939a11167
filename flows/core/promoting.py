"""What becomes of a point whose stages are all done: a name that people know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from flows.core import truth
from flows.core.ledger import Ledger
from flows.core.planning import Asked
from stages.core.running.errors import Refusal

EXPERIMENTS = "refs/exps"
RIVALS = 5  # times that somebody else may be quicker at a branch


@dataclass(frozen=True)
class Outcome:
    """A commit, or the reason why there is none."""

    rev: str
    reason: str = ""


Promote = Callable[[Mapping[str, Asked]], dict[str, Outcome]]


def experiments(ledger: Ledger) -> Promote:
    """Ordinary experiments of DVC on the baseline, created once and never overwritten."""
    return partial(_experiments, ledger)


def _experiments(ledger: Ledger, ready: Mapping[str, Asked]) -> dict[str, Outcome]:
    repository = ledger.repository
    wanted = {place(ledger.baseline, name): ledger.experiment(asked) for name, asked in ready.items()}
    taken = {ref for ref, ours in repository.create(wanted).items() if not ours}
    held = repository.refs(*taken) if taken else {}
    if held:
        repository.fetch(*held)
    return {name: _held(ledger, asked, held, wanted) for name, asked in ready.items()}


def _held(ledger: Ledger, asked: Asked, held: Mapping[str, str], wanted: Mapping[str, str]) -> Outcome:
    """Another coordinator's experiment of this name is as good as ours if it proves the same."""
    ref = place(ledger.baseline, asked.name)
    rev = held.get(ref, wanted[ref])
    if ref in held and not _proves(ledger, rev, asked):
        return Outcome("", f"another experiment is called {asked.name}: remove or rename it")
    return Outcome(rev)


def _proves(ledger: Ledger, rev: str, asked: Asked) -> bool:
    """Nobody can read some of what strangers commit."""
    try:
        return set(asked.keys.items()) <= set(truth.proven(ledger.repository, rev).items())
    except Refusal:
        return False


def place(baseline: str, name: str) -> str:
    return f"{EXPERIMENTS}/{baseline[:2]}/{baseline[2:]}/{name}"


def branch(ledger: Ledger, name: str) -> Promote:
    """The branch itself goes on by a commit with dvc.lock and metrics."""
    return partial(_branch, ledger, name)


def _branch(ledger: Ledger, name: str, ready: Mapping[str, Asked]) -> dict[str, Outcome]:
    return {point: _forward(ledger, name, asked) for point, asked in ready.items()}


def _forward(ledger: Ledger, name: str, asked: Asked) -> Outcome:
    repository, ref = ledger.repository, f"refs/heads/{name}"
    for _ in range(RIVALS):
        tip = repository.refs(ref).get(ref)
        if tip is None:
            return Outcome("", f"there is no branch {name} any more")
        repository.fetch(ref)
        if _proves(ledger, tip, asked):
            return Outcome(tip)
        try:
            new = ledger.branch_commit(tip, asked)
        except Refusal as refusal:
            return Outcome("", str(refusal))
        if repository.forward(name, tip, new):
            return Outcome(new)
    return Outcome("", f"{name} never stood still: start it again, what is done is kept")
