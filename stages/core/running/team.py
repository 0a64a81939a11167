"""Processes that train one network together, as torchrun starts them: what tells them apart and ties them.

All of them run the same stage on the same inputs; the first is the one that writes.
"""

import os
import sys
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True)
class Team:
    rank: int
    size: int

    @property
    def leads(self) -> bool:
        return self.rank == 0


ALONE = Team(0, 1)


def member() -> Team:
    """As torchrun says of this process."""
    return Team(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def start(processes: int, stage: str, arguments: list[str]) -> NoReturn:
    """Become torchrun, which starts this stage so many times and ends all of them when one fails."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "stages", stage, *arguments])  # noqa: S606
