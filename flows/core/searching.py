"""Where to look next: points whose files keep to a budget, found by what the points before them came to.

Optuna proposes: a tree-structured Parzen estimator (Bergstra et al. 2011), each dimension by itself, since few points
say little of them together; it keeps to constraints and holds what is still running for bad. A proposal knows the
outcomes of all but the last `at_once` points, no matter who finishes first. So the same seed is the same search, and
one that broke goes on by taking the same steps.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy.stats import qmc

from flows.core.space import Coordinates, Space
from stages.core import choosing, params
from stages.core.choosing import Candidate

GUIDE = "quantized"  # the file that all stages have made; others of a point may be chosen, but lead nowhere
BEYOND = "beyond"
SPREAD = 1 / 4  # of the points come before the first proposal, evenly over each dimension (McKay et al. 1979)
PROMOTED = 1 / 3  # of a rung, that goes on (Jamieson and Talwalkar 2016)
DRAWS = 20  # proposals of what was tried already, until one is drawn that was not
FUTILE = 10  # times the points: combinations that params.yaml may refuse
POINT = 0.01  # of accuracy
HOPELESS = 1e6  # by which a point that failed misses the budget: where Optuna forgets failures, it comes back
TIE = 1e-15  # accuracy that a byte is worth: none, but of two files as accurate the smaller one is better


@dataclass(frozen=True)
class Outcome:
    """What a point came to: its files, or the reason why there are none."""

    files: tuple[Candidate, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """`rungs` are what is set for all points of a round; the last is the whole, and there may be no other."""

    space: Space
    budget: params.Budget
    points: int
    at_once: int
    seed: int
    rungs: Sequence[tuple[str, ...]] = ((),)


@dataclass
class Entry:
    """A point as the search knows it; nowhere, if the defaults are outside of the space."""

    rung: int
    coordinates: Coordinates | None
    sets: tuple[str, ...]
    trial: Trial | None = None
    outcome: Outcome | None = None
    is_void: bool = False  # no point at all, since params.yaml refuses it


class Search:
    """`base` is where the defaults lie, which come first."""

    def __init__(self, plan: Plan, base: Coordinates | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan = plan
        self.rungs: list[list[Entry]] = [[]]
        self._base = base
        self._study = optuna.create_study(sampler=_sampler(plan))
        self._distributions = {one.set: one.distribution for one in plan.space.dimensions}
        self._random = np.random.default_rng(plan.seed)
        self._spread = [*([base] if base else []), *_spread_out(plan)]
        self._seen: set[tuple[Any, ...]] = set()
        self._heard = 0

    def ask(self) -> list[Entry]:
        """Points that may begin now."""
        new: list[Entry] = []
        while not self._is_full() and self._knows_enough():
            new.append(self._proposed())
            self.rungs[0].append(new[-1])
        return new or self._promoted()

    def sets(self, entry: Entry) -> tuple[str, ...]:
        return (*entry.sets, *self.plan.rungs[entry.rung])

    @property
    def is_over(self) -> bool:
        return self._is_full() and self._is_last() and _are_known(self.rungs[-1])

    @property
    def entries(self) -> list[Entry]:
        """Of all rungs."""
        return [entry for rung in self.rungs for entry in rung if not entry.is_void]

    @property
    def answers(self) -> list[Entry]:
        """Points of the whole parameters that ran."""
        return _ran(self.rungs[-1]) if self._is_last() else []

    def _is_full(self) -> bool:
        first, count = self.rungs[0], self.plan.space.count
        points = sum(not entry.is_void for entry in first)
        exhausted = count is not None and len(self._seen) >= count
        return points >= self.plan.points or exhausted or len(first) >= FUTILE * self.plan.points

    def _is_last(self) -> bool:
        return len(self.rungs) == len(self.plan.rungs)

    # --------------------------------------------------------------------------------------------- the first rung

    def _knows_enough(self) -> bool:
        return _are_known(self._known())

    def _known(self) -> Sequence[Entry]:
        """What the next proposal is to know."""
        first = self.rungs[0]
        return first[: max(0, len(first) - self.plan.at_once + 1)]

    def _proposed(self) -> Entry:
        known = self._known()
        for entry in known[self._heard :]:
            self._hear(entry)
        self._heard = len(known)
        if not self.rungs[0] and self._base is None:
            return Entry(0, None, ())
        coordinates, trial = self._drawn()
        self._seen.add(tuple(coordinates.values()))
        return Entry(0, coordinates, () if coordinates == self._base else self.plan.space.sets(coordinates), trial)

    def _drawn(self) -> tuple[Coordinates, Trial]:
        """Optuna may propose what it has seen."""
        for _ in range(DRAWS):
            if self._spread:
                self._study.enqueue_trial(dict(self._spread.pop(0)))
            coordinates, trial = self._suggested()
            if tuple(coordinates.values()) not in self._seen:
                return coordinates, trial
            self._study.tell(trial, state=TrialState.FAIL)
        self._study.enqueue_trial(self._unseen())
        return self._suggested()

    def _suggested(self) -> tuple[Coordinates, Trial]:
        trial = self._study.ask(self._distributions)
        return {one.set: one.tidy(trial.params[one.set]) for one in self.plan.space.dimensions}, trial

    def _unseen(self) -> dict[str, Any]:
        while True:
            drawn = {one.set: one.at(self._random.random()) for one in self.plan.space.dimensions}
            if tuple(drawn.values()) not in self._seen:
                return drawn

    def _hear(self, entry: Entry) -> None:
        if entry.trial is None or entry.outcome is None:
            return
        if not entry.outcome.files:
            entry.trial.set_user_attr(BEYOND, [HOPELESS])
            self._study.tell(entry.trial, 0.0)
            return
        guide = leading(entry.outcome.files)
        entry.trial.set_user_attr(BEYOND, beyond(guide, self.plan.budget))
        self._study.tell(entry.trial, value(guide, self.plan.budget))

    # ------------------------------------------------------------------------------------------- the rungs above

    def _promoted(self) -> list[Entry]:
        """The best of a rung, once all of it is known."""
        if not self._is_full() or self._is_last() or not _are_known(self.rungs[-1]):
            return []
        best = sorted(_ran(self.rungs[-1]), key=lambda entry: merit(entry, self.plan.budget))
        number = len(self.rungs)
        self.rungs.append(
            [Entry(number, entry.coordinates, entry.sets) for entry in best[: math.ceil(len(best) * PROMOTED)]]
        )
        return self.rungs[-1]


def _are_known(entries: Sequence[Entry]) -> bool:
    return all(entry.outcome for entry in entries)


def _ran(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.outcome and entry.outcome.files]


def _spread_out(plan: Plan) -> list[Coordinates]:
    """Evenly over each dimension."""
    dimensions = plan.space.dimensions
    shares = qmc.LatinHypercube(len(dimensions), rng=plan.seed).random(spread(plan.points))
    return [{one.set: one.at(float(share)) for one, share in zip(dimensions, row, strict=True)} for row in shares]


def spread(points: int) -> int:
    return math.ceil(points * SPREAD)


def _sampler(plan: Plan) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the versions are locked
        return TPESampler(
            seed=plan.seed,
            n_startup_trials=spread(plan.points),
            constant_liar=True,
            constraints_func=_constraints,
        )


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    return trial.user_attrs[BEYOND]


# ------------------------------------------------------------------------------------------------- what is good


def leading(files: Sequence[Candidate]) -> Candidate:
    return next((file for file in files if file.name == GUIDE), files[-1])


def beyond(file: Candidate, budget: params.Budget) -> list[float]:
    """By how much each limit is missed, in parts of what it allows, so that none outweighs the others; what could not
    be measured misses it by all.
    """
    return [1.0 if line.found is None else line.beyond / _allowed(line) for line in choosing.judge(file, budget)]


def _allowed(line: choosing.Line) -> float:
    """Shares are missed by shares, of which a limit allows a few."""
    rule = choosing.LIMITS[line.name]
    return max(1 - line.limit if rule.least else line.limit, POINT) if rule.share else 1.0


def value(file: Candidate, budget: params.Budget) -> float:
    """The less the better, as `choosing.best` has it."""
    enough = budget.accuracy is not None or budget.drop is not None
    return float(file.bytes) if enough else file.bytes * TIE - file.accuracy


def merit(entry: Entry, budget: params.Budget) -> tuple[float, float]:
    """The less the better: first what keeps to the budget, then what misses it by little (Deb 2000)."""
    guide = leading(entry.outcome.files if entry.outcome else ())
    return sum(beyond(guide, budget)), value(guide, budget)


def measured(exported: Mapping[str, Any], benchmarked: Mapping[str, Any] | None) -> tuple[Candidate, ...]:
    """Files of a point. Where nothing but their sizes and accuracies is limited, nothing else was measured."""
    if benchmarked is not None:
        return tuple(choosing.candidates(benchmarked, exported))
    best = exported[choosing.BASELINE]["accuracy"]
    return tuple(
        Candidate(name, facts["bytes"], 0, 0.0, None, facts["accuracy"], best - facts["accuracy"])
        for name, facts in exported.items()
    )


def front(files: Sequence[Candidate], by_time: bool) -> list[Candidate]:
    """Those that no other beats in one respect and equals in the others; the smallest first, and of equals one."""
    kept: dict[tuple[float, ...], Candidate] = {}
    for file in sorted(files, key=lambda file: _respects(file, by_time)):
        mine = _respects(file, by_time)
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) for other in kept):
            kept[mine] = file
    return list(kept.values())


def _respects(file: Candidate, by_time: bool) -> tuple[float, ...]:
    return (file.bytes, -file.accuracy, *([file.time] if by_time else []))
