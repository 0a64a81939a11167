"""`lightvision reproduce`: run again what made a file, in a fresh clone, and say whether the same comes out."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightvision import attempts, experiments, lineage, objects, revisions
from lightvision.attempts import REACHED
from lightvision.objects import FOLDER, Objects
from lightvision.recorded import Record
from stages.core import hardware
from stages.core.running import files, pipeline, progress
from stages.core.running.errors import Refusal

JUDGE = "evaluate"  # which measures the accuracies of what the others made
ACCURACIES, BYTES = "accuracy", "bytes"
POINTS, SHARE = 0.01, 0.01  # of accuracy and of bytes, where another machine may come out otherwise
MACHINE = ("cpu", "instructions", "torch", "onnxruntime")  # in metrics/benchmark.json


@dataclass(frozen=True)
class Line:
    """One thing held against what was recorded; `alike` if it is equal, `near` if within the tolerance."""

    name: str
    before: str
    after: str
    alike: bool
    near: bool


def add(members: Any, action: str) -> None:
    text = (
        "Run anew, in a clone of its commit, the stages that made a file, and compare: shipped files by their digests, "
        "accuracies and bytes by their numbers. Exit status 1 where something comes out otherwise."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("name", metavar="FILE|MODEL|RUN", help=lineage.WHAT)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the clone stays; else it is thrown away")
    parser.add_argument("--cached", action="store_true", help="take from DVC's cache or remote what is there")
    parser.set_defaults(run=run)


def run(name: str, to: Path | None, cached: bool) -> int:
    kept = Objects()
    with tempfile.TemporaryDirectory() as folder:
        record = sure(name, lineage.find(name, kept, Path(folder)).record)
    if to is not None:
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise Refusal(f"--to {to} is there already: name a folder that is not")
        return _carry_out(record, to.resolve(), cached, kept)
    with tempfile.TemporaryDirectory(prefix="lightvision-") as folder:
        return _carry_out(record, Path(folder) / "clone", cached, kept)


def sure(name: str, record: Record | None) -> Record:
    """Only what a commit tells whole can be made again from it."""
    if record is None:
        raise Refusal(f"{name} is recorded by no dvc.lock of any commit or experiment here: nobody knows what made it")
    if not record.rev:
        raise Refusal(f"{name} is recorded by a dvc.lock that is not committed: commit it first")
    if not record.of_its_parameters():
        raise Refusal(f"{name}: the stages were given other parameters than params.yaml of {record.rev[:7]} holds")
    if code := record.of_its_code():
        raise Refusal(f"{name}: the stages ran other code than {record.rev[:7]} holds: {', '.join(code[:3])}")
    return record


def _carry_out(record: Record, folder: Path, cached: bool, kept: Objects) -> int:
    clone(record.rev, folder)
    repeat(record, folder, cached)
    there = machine(json.loads(revisions.content(record.rev, "metrics/benchmark.json") or b"{}").get("machine"))
    here = machine(hardware.describe())
    return told(record, list(compare(record, folder, kept, same=there == here)), there, here)


def clone(rev: str, folder: Path) -> None:
    """Of one commit, whatever ref holds it; DVC's cache and remote are those of this project."""
    where = _output(["git", "rev-parse", "--show-toplevel"], "git knows no project here").strip()
    commands = (
        ["git", "init", "-q", str(folder)],
        ["git", "-C", str(folder), "fetch", "-q", "--depth=1", where, rev],
        ["git", "-C", str(folder), "checkout", "-q", "--detach", rev],
    )
    for command in commands:
        _output(command, f"{rev[:7]} cannot be had from {where}")
    _same_storage(Path(where), folder)
    tracked = _output(["git", "ls-files", "*.dvc"], "git lists no files", folder).split()
    if tracked:
        _output(_dvc("pull", *tracked), f"data of {rev[:7]} is neither in DVC's cache nor in a remote", folder)


def _same_storage(project: Path, folder: Path) -> None:
    """DVC's cache and remotes, which may lie beside the project, with what only this machine knows of them."""
    local = project / ".dvc" / "config.local"
    if local.is_file():
        (folder / ".dvc" / "config.local").write_text(local.read_text())
    cache = _output(_dvc("cache", "dir"), "DVC has no cache here").strip()
    _output(_dvc("cache", "dir", "--local", cache), "DVC takes no other cache", folder)
    for line in _output(_dvc("remote", "list"), "DVC lists no remotes here").splitlines():
        name, url = line.removesuffix("(default)").strip().split(maxsplit=1)
        _output(_dvc("remote", "modify", "--local", name, "url", url), "DVC takes no other remote", folder)


def repeat(record: Record, folder: Path, cached: bool) -> None:
    stages = pipeline.read(folder / "dvc.yaml")
    targets = [record.maker, *([JUDGE] if JUDGE in stages and record.maker != JUDGE else [])]
    count = len({stage.name for target in targets for stage in (stages[target], *pipeline.upstream(target, stages))})
    command = [*_dvc("repro"), "--pull" if cached else "--force", *targets]
    environment = {name: value for name, value in os.environ.items() if name != "DVC_EXP_NAME"}
    environment |= {"PYTHONUNBUFFERED": "1", "LIGHTVISION_TRACKING": "off", "PYTHONPATH": str(folder)}
    with tempfile.TemporaryFile("w+") as errors, progress.bars() as bars:
        task = bars.add_task(f"{record.rev[:7]} again", total=count, facts="")
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as child:
            for line in child.stdout or ():
                if line.startswith(REACHED):
                    bars.update(task, facts=line.removeprefix(REACHED).partition("'")[0])
                    bars.advance(task)
        if child.returncode:
            errors.seek(0)
            raise Refusal(f"{record.rev[:7]} does not run again: {attempts.reason(errors.read())}")


def compare(record: Record, folder: Path, kept: Objects, same: bool) -> Iterator[Line]:
    """Files by DVC's digests, since those are recorded though no byte of a file may be left; `same` is the machine."""
    yield from _contents(record, folder, kept, same)
    for stage in (JUDGE, "export"):
        path = f"metrics/{stage}.json"
        before = revisions.content(record.rev, path)
        if before is None or not (folder / path).is_file():
            continue
        old, new = (experiments.flat(content) for content in (json.loads(before), files.read_json(folder / path)))
        for name, value in old.items():
            if name.rpartition(".")[2] in (ACCURACIES, BYTES) and isinstance(value, int | float):
                yield _number(f"{stage}.{name}", value, new.get(name), same)


def _contents(record: Record, folder: Path, kept: Objects, same: bool) -> Iterator[Line]:
    old, path = record.outs[record.path][1]["md5"], folder / record.path
    before = (kept.listing(old) if old.endswith(FOLDER) else None) or {"": old}
    for name, md5 in before.items():
        file = path / name if name else path
        after = objects.of_path(file) if file.exists() else ""
        alike = after == md5
        tell = f"sha256 {files.digest(file)[:16]}" if alike else f"md5 {md5[:16]}"
        now = tell if alike else f"md5 {after[:16]}" if after else "absent"
        yield Line(f"{record.path}/{name}".rstrip("/"), tell, now, alike, alike or bool(after and not same))


def _number(name: str, before: float, after: Any, same: bool) -> Line:
    if not isinstance(after, int | float):
        return Line(name, f"{before:g}", "absent", False, False)
    tolerance = 0.0 if same else POINTS if name.endswith(ACCURACIES) else SHARE * before
    return Line(name, f"{before:.10g}", f"{after:.10g}", before == after, abs(before - after) <= tolerance)


def machine(told: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: (told or {}).get(name, "unknown") for name in MACHINE}


def told(record: Record, lines: list[Line], there: Mapping[str, Any], here: Mapping[str, Any]) -> int:
    same = there == here
    table = Table(title=f"{record.path} of {record.rev[:7]}, run again")
    table.add_column("what", no_wrap=True, min_width=max(len(line.name) for line in lines))
    for column in ("recorded", "now", ""):
        table.add_column(column, overflow="fold")
    for line in lines:
        verdict = "equal" if line.alike else "differs, as another machine may" if line.near else "[bold red]DIFFERS[/]"
        table.add_row(line.name, line.before, line.after, verdict)
    Console().print(table)
    others = [f"{name} {there[name]} -> {here[name]}" for name in MACHINE if there[name] != here[name]]
    print("the same type of machine" if same else f"another type of machine: {'; '.join(others)}")
    wrong = [line.name for line in lines if not line.near]
    if all(line.alike for line in lines):
        print("reproduced, to the last byte")
    elif wrong:
        print(f"not reproduced: {', '.join(wrong)}")
    else:
        print(f"reproduced within {POINTS * 100:g} point of accuracy and {SHARE:.0%} of bytes; bytes of files differ")
    return 1 if wrong else 0


def _dvc(*words: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


def _output(command: list[str], refusal: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Refusal(f"{refusal}: {attempts.reason(done.stderr)}")
    return done.stdout
