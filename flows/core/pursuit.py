"""A search carried out: its points are handed to a coordinator, and what git shows of them goes back to the search."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flows.core.coordinator import Coordinator, Fate, Point
from flows.core.planning import Asked
from flows.core.repository import Unreachable
from flows.core.searching import Entry, Outcome, Search, measured
from flows.core.work import Wish
from stages.core import choosing, params
from stages.core.choosing import Candidate
from stages.core.running.errors import Refusal

EXPORT, BENCHMARK = "export", "benchmark"
TIMED = frozenset({"milliseconds", "joules", "macs"})  # limits of what benchmark alone measures

Expand = Callable[[Sequence[Wish], Sequence[str]], list[Asked]]


def target(budget: params.Budget) -> str:
    """The last stage that runs: nothing is measured that nobody limits."""
    return BENCHMARK if TIMED & choosing.limited(budget).keys() else EXPORT


class Pursuit:
    """`sets` and `seed` are of every point; points that come to the same parameters are one experiment."""

    def __init__(
        self,
        search: Search,
        coordinator: Coordinator,
        expand: Expand,
        sets: Sequence[str],
        seed: int,
    ) -> None:
        self.search = search
        self._coordinator, self._expand = coordinator, expand
        self._sets, self._seed = tuple(sets), seed
        self._target = target(search.plan.budget)
        self._names: dict[int, str] = {}  # by the entry's id, which lives as long as the search
        self._finished: Asked | None = None

    def step(self) -> bool:
        """False when the search is over."""
        self._coordinator.step()
        for entry in self.search.entries:
            if entry.outcome is None:
                entry.outcome = self._outcome(self.point(entry))
        self._begin(self.search.ask())
        return not self.search.is_over

    def sets(self, entry: Entry) -> tuple[str, ...]:
        return (*self._sets, *self.search.sets(entry))

    def point(self, entry: Entry) -> Point:
        return self._coordinator.points[self._names[id(entry)]]

    def finish(self, entry: Entry) -> bool:
        """All that is measured of one point, such as `lightvision best` wants it; False when it is known."""
        if self._finished is None:
            [self._finished] = self._expand([self._wish(entry)], [BENCHMARK])
            self._add([self._finished])
        self._coordinator.step()
        return self._coordinator.points[self._finished.name].fate is Fate.OPEN

    @property
    def finished(self) -> Point | None:
        return self._coordinator.points[self._finished.name] if self._finished else None

    def told(self, point: Point, stage: str) -> Mapping[str, Any] | None:
        """Metrics of an experiment; of stages that were not asked for it holds its baseline's."""
        held = self._coordinator.repository.read(point.rev, f"metrics/{stage}.json")
        return json.loads(held) if held and stage in point.asked.keys else None

    # ------------------------------------------------------------------------------------------------------------

    def _begin(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            asked = self._expand([self._wish(entry) for entry in entries], [self._target])
        except Refusal:
            asked = [one for entry in entries if (one := self._alone(entry))]
        self._names |= {id(entry): one.name for entry, one in zip(_points(entries), asked, strict=True)}
        self._add(asked)

    def _alone(self, entry: Entry) -> Asked | None:
        """Each value was checked, but not beside each other."""
        try:
            [asked] = self._expand([self._wish(entry)], [self._target])
        except Refusal as refusal:
            entry.is_void, entry.outcome = True, Outcome(reason=str(refusal))
            return None
        return asked

    def _add(self, asked: Sequence[Asked]) -> None:
        try:
            self._coordinator.add(asked)
        except Unreachable:
            """The coordinator has noted them, and goes on by itself."""

    def _wish(self, entry: Entry) -> Wish:
        return Wish(seed=self._seed, sets=self.sets(entry))

    def _outcome(self, point: Point) -> Outcome | None:
        if point.fate is Fate.OPEN:
            return None
        if point.fate is Fate.FAILED:
            return Outcome(reason=point.reason)
        try:
            return Outcome(self._files(point))
        except Refusal as refusal:
            return Outcome(reason=str(refusal))

    def _files(self, point: Point) -> tuple[Candidate, ...]:
        exported = self.told(point, EXPORT)
        if exported is None:
            raise Refusal("it has no metrics/export.json")
        return measured(exported, self.told(point, BENCHMARK))


def _points(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if not entry.is_void]
