"""What people see in Prefect's UI while stages run; that it cannot be shown harms nobody."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_progress_artifact, update_progress_artifact

EPOCH = re.compile(r"epoch (\d+)/(\d+)")
STAGE = re.compile(r"Running stage '(.+)'")
HOST = "lightvision.host"  # a run's label: Prefect itself knows the number of its process alone
PAUSE = 5.0  # seconds between two updates, and between two epochs that the log tells


@dataclass
class Progress:
    """A progress artifact for each stage, fed with the lines that stages say."""

    stage: str = "job"
    began: float = 0.0
    first: int = 0
    reached: int = 0
    told: float = float("-inf")
    logged: float = float("-inf")
    artifacts: dict[str, UUID] = field(default_factory=dict)

    def wants(self, line: str) -> bool:
        """Epochs come faster than anybody reads them."""
        found = EPOCH.search(line)
        if found and found[1] != found[2] and time.monotonic() - self.logged < PAUSE:
            return False
        self.logged = time.monotonic() if found else self.logged
        return True

    def hear(self, line: str) -> None:
        stage, epoch = STAGE.search(line), EPOCH.search(line)
        if stage:
            self.stage, self.first, self.told = stage[1], 0, float("-inf")
        elif epoch:
            self._reach(int(epoch[1]), int(epoch[2]))

    def _reach(self, epoch: int, epochs: int) -> None:
        now = time.monotonic()
        if epoch <= self.reached:  # a stage may train several networks
            self.first = 0
        self.reached = epoch
        if not self.first:
            self.began, self.first = now, epoch
        if now - self.told < PAUSE and epoch < epochs:
            return
        self.told = now
        with suppress(Exception):
            self._show(100 * epoch / epochs, self._words(epoch, epochs, now))

    def _words(self, epoch: int, epochs: int, now: float) -> str:
        done = epoch - self.first
        eta = f", {lasts((now - self.began) / done * (epochs - epoch))} left" if done else ""
        return f"{self.stage}: epoch {epoch}/{epochs}{eta}"

    def _show(self, percent: float, words: str) -> None:
        if self.stage in self.artifacts:
            update_progress_artifact(self.artifacts[self.stage], percent, description=words)
            return
        created = create_progress_artifact(percent, key=self.stage.replace("_", "-"), description=words)
        if isinstance(created, UUID):
            self.artifacts[self.stage] = created


def place(run: UUID, host: str) -> None:
    """Where a job is, for whoever looks on while it runs."""
    with suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run_labels(run, {HOST: host})


def lasts(seconds: float) -> str:
    """As a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
