"""Hands that do a job in milliseconds: what stages make is a formula of what they read, noted as DVC would note it."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.core import lock, truth
from flows.core.hands import Seen, Stand, Ticket
from flows.core.repository import Repository
from flows.core.work import Work
from lightvision.experiments import reach
from stages.core.running import files
from tests.flows import small

Content = Mapping[str, Any]
ENDED = Seen(Stand.ENDED)


@dataclass(frozen=True)
class Deed:
    """What becomes of an attempt: so many of its stages are done, all of them if none is told.

    A result is pushed when it was looked for `late` times. `salt` is what makes it another one, as another GPU might.
    """

    seen: Seen | None = ENDED
    finished: int | None = None
    late: int = 0
    salt: str = ""


DONE = Deed()
SILENT = Deed(None)
Script = Callable[[Work, int, Content], Deed]


def lost(reason: str = "", finished: int = 0, late: int = 0) -> Deed:
    return Deed(Seen(Stand.LOST, reason), finished, late)


def failed(reason: str, finished: int = 0) -> Deed:
    return Deed(Seen(Stand.FAILED, reason), finished)


class Killed(Exception):
    """A coordinator that is no more."""


class Formula:
    """They outlive coordinators; `life` is how often one may ask before it is killed, `made` are metrics by stage."""

    def __init__(
        self,
        repository: Repository,
        made: Callable[[Content], Mapping[str, Any]] = lambda content: {},
        script: Script = lambda work, attempt, content: DONE,
        life: int = 1_000_000,
    ) -> None:
        self._repository, self._made, self._script = repository, made, script
        self.life = life
        self.ran: list[str] = []  # stages
        self.executed: Counter[str] = Counter()  # keys of stages
        self.asked: dict[str, Deed] = {}
        self.works: list[Work] = []
        self.cancelled: list[str] = []
        self._over: set[str] = set()
        self._late: list[list[Any]] = []

    def ask(self, work: Work, name: str, pool: str) -> Ticket:
        self.life -= 1
        if self.life < 0:
            raise Killed
        if name not in self.asked:
            self.works.append(work)
            content = truth.parameters((self._repository.read(work.start, truth.PARAMS) or b"").decode())
            self.asked[name] = deed = self._script(work, int(name.rpartition("/")[2]), content)
            self._carry_out(work, content, deed)
        seen = self.asked[name].seen
        return Ticket(name, seen if seen and name in self._over else Seen(Stand.WAITING))

    def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        for waiting in [*self._late]:
            waiting[0] -= 1
            if not waiting[0]:
                self._late.remove(waiting)
                self._repository.create({waiting[1]: waiting[2]})
        found = {one: seen for one in ids if (seen := self.asked[one].seen)}
        self._over |= {one for one, seen in found.items() if seen.stand is not Stand.RUNNING}
        return found

    def cancel(self, ids: Collection[str]) -> None:
        self.cancelled += ids

    def _carry_out(self, work: Work, content: Content, deed: Deed) -> None:
        stages = work.stages[: deed.finished]
        keys = truth.keys(self._repository, work.start)
        blocks = dict(truth.blocks(self._repository, work.start))
        changes: dict[str, bytes] = {}
        for stage in stages:
            entry, kept = self._done(work.start, stage, content, blocks, deed.salt)
            blocks[stage], changes = block(stage, entry), changes | kept
        self.ran += stages
        self.executed.update(keys[stage] for stage in stages)
        if not stages:
            return
        changes[lock.NAME] = lock.joined(blocks).encode()
        result = self._repository.commit(work.start, [work.start], changes, "Result\n")
        if deed.late:
            self._late.append([deed.late, work.target, result])
        else:
            self._repository.create({work.target: result})

    def _done(
        self, rev: str, name: str, content: Content, blocks: Mapping[str, str], salt: str
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        stage = truth.stages(self._repository, rev)[name]
        held = {out["path"]: out["md5"] for text in blocks.values() for out in lock.entry(text, "a test")["outs"]}
        values = {one: reach(content, one) for one in sorted(stage.params)}
        deps = [{"path": dep, "md5": held[dep]} for dep in sorted(stage.deps)]
        kept = {out: json.dumps(self._made(content)[name]).encode() for out in stage.kept}
        other = f"{name} {values} {deps} {salt}".encode()
        outs = [{"path": out, "md5": md5(kept.get(out, other))} for out in sorted(stage.outs)]
        return {"cmd": stage.cmd, "deps": deps, "params": {truth.PARAMS: values} if values else {}, "outs": outs}, kept


def block(name: str, entry: Mapping[str, Any]) -> str:
    """As DVC writes it, but for the order."""
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump({name: dict(entry)}, stream)
    return "".join(f"  {line}" for line in stream.getvalue().splitlines(keepends=True))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def build(folder: Path, pipeline: str, parameters: str) -> None:
    """A project in git, of which nothing has run."""
    folder.mkdir(parents=True)
    files.write_text(folder / truth.DAG, pipeline)
    files.write_text(folder / truth.PARAMS, parameters)
    for words in ("init -q -b main", "config user.email a@b.c", "config user.name n"):
        small.git(folder, *words.split())
    small.commit(folder)
