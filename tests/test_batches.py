"""A split that is larger than the memory passes through it all the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.core.datasets import storage
from stages.core.running import sources

PICTURES, SIZE = 2048, 256  # 384 MiB
ROOM = 260  # MiB that the process may take beyond what torch itself does

EPOCH = """
import resource, sys
from pathlib import Path
import torch
from stages.core import batches, machine, params
from stages.core.datasets import storage
settings = params.load(Path(sys.argv[2]))
here = machine.choose(settings.compute.model_copy(update={"device": "cpu", "threads": 1, "resident": 0.0}), 0)
torch.ones(64, 3, 64, 64).add(1)
taken = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
room = int(sys.argv[3]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (taken + room, taken + room))
split = storage.load(Path(sys.argv[1]))
if sys.argv[4] == "at once":
    split = type(split)(split.facts, split.images.copy(), split.labels)
pictures = batches.on_device(split, here)
unmixed = params.Unmixed(name="none")
print(sum(len(labels) for _, labels, *_ in batches.shuffled(pictures, 16, settings.augment, unmixed, 0, 0)))
print(sum(len(labels) for _, labels in batches.in_order(pictures)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is of Linux")
def test_more_than_the_memory_passes_through(tmp_path: Path) -> None:
    facts = storage.Facts("large", ("a", "b"), SIZE, (0.5,) * 3, (0.25,) * 3, "crop")
    pixels = (np.full((SIZE, SIZE, 3), number % 251, np.uint8) for number in range(PICTURES))
    roll = storage.Roll([""] * PICTURES, [""] * PICTURES, {})
    storage.write(tmp_path / "split", pixels, np.arange(PICTURES) % 2, facts, roll)

    def run(how: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", EPOCH, tmp_path / "split", sources.ROOT / "params.yaml", str(ROOM), how],
            env=os.environ | {"PYTHONPATH": str(sources.ROOT)},
            capture_output=True,
            text=True,
        )

    streamed = run("streamed")
    assert streamed.stdout.split() == [str(PICTURES)] * 2, streamed.stderr
    assert "MemoryError" in run("at once").stderr  # the limit is one
