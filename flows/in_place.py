"""The DAG of dvc.yaml in the folder where one works: a task for each stage, with its state, retries, logs and progress.

DVC still decides what has to run and writes the lock, so that a `dvc repro` afterwards finds nothing to do.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from stages.core import params
from stages.core.running import pipeline as dag

EPOCH = re.compile(r"epoch (\d+)/(\d+)")
UNCHANGED = re.compile(r"Stage '.+' didn't change, skipping|is cached - skipping run")


@flow(name="pipeline in place", task_runner=ThreadPoolTaskRunner(max_workers=1))  # pyright: ignore
def in_place(targets: list[str] | None = None) -> dict[str, str]:
    """One workspace holds one DVC lock, so stages run one at a time; the graph of tasks is that of dvc.yaml."""
    params.load(Path("params.yaml"))
    stages = dag.read()
    futures: dict[str, PrefectFuture] = {}
    for name in in_order(stages, targets or list(stages)):
        parents = [futures[parent.name] for parent in dag.upstream(name, stages)]
        task_of_stage = reproduce.with_options(name=name)
        futures[name] = task_of_stage.submit(name, wait_for=parents)  # pyright: ignore[reportCallIssue]
    states = {name: future.wait() or future.state for name, future in futures.items()}
    failed = [name for name, state in states.items() if not state.is_completed()]
    if failed:
        raise RuntimeError(f"stage {failed[0]} failed; its log says why")
    return {name: state.name or "Completed" for name, state in states.items()}


@task(retries=1, retry_delay_seconds=2)
def reproduce(name: str) -> State:
    """`dvc repro` of one stage; a second attempt goes on from the last checkpoint."""
    logger = get_run_logger()
    unchanged, last = False, ""
    progress: UUID | None = None
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in filter(None, map(str.rstrip, process.stdout or [])):
                logger.info(line)
                last = line if line.startswith((f"{name}:", "ERROR")) and not EPOCH.search(line) else last
                unchanged = unchanged or bool(UNCHANGED.search(line))
                progress = show(progress, name, line)
        finally:
            process.terminate()
    if process.returncode:
        raise RuntimeError(last or f"`dvc repro -s {name}` ended with status {process.returncode}")
    return Completed(name="Cached", message="nothing changed") if unchanged else Completed(message="executed")


def show(artifact: UUID | None, name: str, line: str) -> UUID | None:
    """Epochs told in the log become a progress bar in the UI."""
    found = EPOCH.search(line)
    if not found:
        return artifact
    done = 100 * int(found[1]) / int(found[2])
    if artifact is None:
        created = create_progress_artifact(done, key=name.replace("_", "-"), description=line)
        return created if isinstance(created, UUID) else None
    update_progress_artifact(artifact, done, description=line)
    return artifact


def in_order(stages: dict[str, dag.Stage], targets: Iterable[str]) -> list[str]:
    """The targets and all they need, each after what it needs."""
    wanted: set[str] = set()
    for target in targets:
        wanted |= {target, *(parent.name for parent in dag.upstream(target, stages))}
    return sorted(wanted, key=lambda name: (len(dag.upstream(name, stages)), list(stages).index(name)))
