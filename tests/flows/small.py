"""A project of DVC of four stages, a line of shell each, with all that a dep may be: source, added, made, a folder."""

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from dvc.repo import Repo

from stages.core.running.sources import ROOT

PIPELINE = """
stages:
  draw:
    cmd: >-
      mkdir -p data/drawn && cat raw/* src/draw/*.txt > data/drawn/all.txt
      && grep ^seed params.yaml >> data/drawn/all.txt
    meta: {pool: cpu}
    params: [seed]
    deps: [raw, src/draw]
    outs: [data/drawn]
  learn:
    cmd: >-
      mkdir -p models metrics/curves && cat data/drawn/all.txt src/learn.txt > models/net
      && grep ' sparsity:' params.yaml >> models/net && cp models/net metrics/curves/learn.csv && echo "{\\"size\\":
      $(wc -c < models/net)}" > metrics/learn.json
    params: [prune.sparsity, prune.scan]
    deps: [data/drawn, src/learn.txt]
    outs: [models/net]
    metrics: [metrics/learn.json: {cache: false}]
    plots: [metrics/curves/learn.csv: {cache: false}]
  cut:
    cmd: >-
      mkdir -p metrics/curves metrics/shapes && wc models/net > metrics/curves/cut.csv
      && cp models/net metrics/shapes/$(wc -c < models/net).txt
    deps: [models/net]
    outs: [metrics/shapes: {cache: false}]
    plots: [metrics/curves/cut.csv: {cache: false}]
  tell:
    cmd: cat metrics/curves/* metrics/learn.json > page.txt
    meta: {pool: cpu}
    deps: [metrics/curves, metrics/learn.json]
    outs: [page.txt]
"""


@contextmanager
def repo(folder: Path) -> Iterator[Repo]:
    """As `dvc` would be told there; its libraries warn their own developers."""
    with chdir(folder), warnings.catch_warnings(action="ignore"), Repo() as found:
        yield found


def build(folder: Path) -> Path:
    """Run once and committed."""
    for path in ("src/draw/deep", "raw", "metrics/curves"):
        (folder / path).mkdir(parents=True)
    for path in (
        "src/draw/a.txt",
        "src/draw/deep/ü.txt",
        "src/draw/b.partial",
        "src/learn.txt",
        "raw/1.txt",
        "raw/2.txt",
    ):
        (folder / path).write_text(f"{path}\n")
    (folder / "metrics/curves/by_hand.csv").write_text("1\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text("/raw\n/data\n/models\n/page.txt\n")
    shutil.copy(ROOT / "params.yaml", folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "a@b.c")
    git(folder, "config", "user.name", "n")
    with chdir(folder), warnings.catch_warnings(action="ignore"):
        Repo.init().close()
    (folder / ".dvcignore").write_text("*.partial\n")
    with repo(folder) as dvc:
        dvc.add("raw")  # pyright: ignore[reportArgumentType]
        dvc.reproduce()  # pyright: ignore[reportCallIssue]
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "made", "--allow-empty")
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, env=os.environ
    )
    return done.stdout.strip()
