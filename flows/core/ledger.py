"""What is done, as a coordinator sees it, and the commits that say so.

A result counts only with the results it was made from: where a stage came out otherwise a second time, say on another
GPU, what rests on the one never stands beside the other.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from flows.core import lock, planning, truth
from flows.core.planning import Asked, Job
from flows.core.repository import Repository
from flows.core.work import STARTS
from stages.core.running.errors import Refusal

Sums = dict[str, str]  # md5 by out


@dataclass(frozen=True)
class Result:
    """`block` is of dvc.lock, `kept` are blobs of what git has and DVC has not, `rests_on` is by keys of makers."""

    block: str
    outs: frozenset[str]
    kept: dict[str, str]
    made: Sums
    rests_on: dict[str, Sums]


class Ledger:
    """Results by the keys of their stages."""

    def __init__(self, repository: Repository, baseline: str) -> None:
        self.repository = repository
        self.baseline = repository.sha(baseline)
        self._stages = truth.stages(repository, self.baseline)
        self._order = list(truth.parents(self._stages))
        self._results: dict[str, Result] = {}
        self._above: dict[str, set[str]] = {}  # who rests on a result

    @property
    def done(self) -> Container[str]:
        """Keys of stages."""
        return self._results.keys()

    def learn(self, rev: str) -> set[str]:
        """What is proven in a commit and agrees with what is known counts from now on; these keys are new.

        Of a stranger's commit that nobody can read, nothing.
        """
        try:
            return self._take(rev, truth.proven(self.repository, rev))
        except Refusal:
            if rev == self.baseline:
                raise
            return set()

    def forget(self, keys: Iterable[str]) -> None:
        """Their data is lost; what rests on them stays, if they come out the same again."""
        for key in keys:
            self._results.pop(key, None)

    def start(self, job: Job, asked: Asked) -> tuple[str, str]:
        """A ref and its commit: the baseline with the parameters of one of the job's points and all that the job needs.

        The ref tells starts of one job apart, `<job key>/<commit>`: coordinators may have other results of its makers.
        """
        names = [name for name in truth.wanted(self._stages, job.stages) if asked.keys[name] in self._results]
        left = set(job.stages) - set(names)
        sha = self._commit(self.baseline, asked, names, f"Start of {', '.join(job.stages)}\n\nJob {job.key}\n", left)
        return f"{STARTS}/{job.key}/{sha[:16]}", sha

    def shows(self, job: Job, rev: str) -> dict[str, str]:
        """Of a child of any start of this job, what it proves of the job's stages, by their names."""
        [start, *others] = self.repository.parents(rev) or [rev]
        known = truth.keys(self.repository, start)
        keys = {name: known[name] for name in job.stages if name in known}
        if others or planning.name(keys.values()) != job.key:
            raise Refusal(f"commit {rev[:10]} is no child of a start of job {job.key} ({', '.join(job.stages)})")
        proven = truth.proven(self.repository, rev)
        return {name: key for name, key in keys.items() if proven.get(name) == key}

    def accept(self, job: Job, rev: str) -> set[str]:
        """What it shows counts from now on, and nothing else of it.

        A stage that is known already is told again if it came out the same.
        """
        mine = self.shows(job, rev)
        self._take(rev, mine)
        found = self._read(rev, mine)
        return {key for key, result in found.items() if key in self._results and self._results[key].made == result.made}

    def experiment(self, asked: Asked) -> str:
        """The point as DVC's experiment on the baseline."""
        return self._commit(self.baseline, asked, self._all(asked), f"{asked.name}\n\n{' '.join(asked.sets)}\n")

    def branch_commit(self, tip: str, asked: Asked) -> str:
        """What the branch's own parameters came to, on top of it; params.yaml stays as a person wrote it."""
        now = truth.keys(self.repository, tip)
        if changed := [name for name, key in asked.keys.items() if now.get(name) != key]:
            raise Refusal(f"the branch has gone on since, and {changed[0]} is another now: start it again from there")
        written = (self.repository.read(tip, truth.PARAMS) or b"").decode()
        return self._commit(tip, replace(asked, params_text=written), self._all(asked), "Results of the pipeline\n")

    def _all(self, asked: Asked) -> list[str]:
        if lacking := [name for name, key in asked.keys.items() if key not in self._results]:
            raise Refusal(f"{asked.name} is not finished: it has no {lacking[0]}")
        return list(asked.keys)

    def _commit(self, base: str, asked: Asked, names: Collection[str], message: str, left: Collection[str] = ()) -> str:
        """Stages that are `left` have no entry in dvc.lock: DVC believes one that tells of a dep which is no more."""
        results = {name: self._results[asked.keys[name]] for name in self._order if name in names}
        blocks = truth.blocks(self.repository, base) | {name: result.block for name, result in results.items()}
        blocks = {name: block for name, block in blocks.items() if name not in left}
        changes: dict[str, bytes | None] = {truth.PARAMS: asked.params_text.encode()}
        changes[lock.NAME] = lock.joined(blocks).encode() if blocks else None
        for result in results.values():
            for out in result.outs:
                changes |= dict.fromkeys(self.repository.listing(base, out))
            changes |= {path: self.repository.blob(blob) for path, blob in result.kept.items()}
        return self.repository.commit(base, [base], changes, message)

    def _take(self, rev: str, keys: Mapping[str, str]) -> set[str]:
        new = {key: one for key, one in self._read(rev, keys).items() if key not in self._results}
        for key, result in new.items():
            if self._agrees(result):
                self._results[key] = result
                for maker in result.rests_on:
                    self._above.setdefault(maker, set()).add(key)
                self.forget([above for above in self._above.get(key, ()) if not self._stands(above)])
        return new.keys() & self._results.keys()

    def _stands(self, key: str) -> bool:
        return key not in self._results or self._agrees(self._results[key])

    def _agrees(self, result: Result) -> bool:
        """With those of its makers that are known."""
        known = {key: self._results[key].made for key in result.rests_on if key in self._results}
        return all(sums.items() <= known[key].items() for key, sums in result.rests_on.items() if key in known)

    def _read(self, rev: str, keys: Mapping[str, str]) -> dict[str, Result]:
        """Results of stages that are proven in a commit, each after its makers."""
        rev = self.repository.sha(rev)
        known, every = truth.stages(self.repository, rev), truth.keys(self.repository, rev)
        blocks, entries = truth.blocks(self.repository, rev), truth.entries(self.repository, rev)
        made = {name: {out["path"]: out["md5"] for out in entries[name]["outs"]} for name in entries}
        found: dict[str, Result] = {}
        for name, before in truth.parents(known).items():
            if name in keys:
                listed = [self.repository.listing(rev, out) for out in known[name].kept]
                found[keys[name]] = Result(
                    block=blocks[name],
                    outs=known[name].kept,
                    kept={path: blob for files in listed for path, blob in files.items()},
                    made=made[name],
                    rests_on={every[maker]: _of(made[maker], known[name].deps) for maker in before},
                )
        return found


def _of(sums: Sums, deps: Iterable[str]) -> Sums:
    """Those that are read: themselves, or as part of a folder."""
    return {out: md5 for out, md5 in sums.items() if any(truth.holds(dep, out) for dep in deps)}
