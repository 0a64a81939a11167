"""How long a coordinator plans: seeds x sparsities on this project's own dvc.yaml, nothing done yet.

python -m tests.flows.planning_scale 1000 OUT.json
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from flows.core import planning, truth
from flows.core.ledger import Ledger
from flows.core.repository import Repository
from flows.core.work import STARTS
from stages.core.running import files
from stages.core.running.sources import ROOT

SHARES = 10  # of sparsity, for each seed


@dataclass(frozen=True)
class Wish:
    row: str
    seed: int
    fold: int | None
    sets: tuple[str, ...]


def main() -> None:
    count, out = int(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        server = Path(folder) / "server.git"  # refs are pushed there
        subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(server)], check=True)
        repository = Repository.open(str(server), Path(folder) / "mirror.git")
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        found = measured(repository, head.stdout.strip(), count)
    files.write_text(out, json.dumps(found, indent=2) + "\n")
    print(out.read_text(encoding="utf-8"), end="")


def measured(repository: Repository, rev: str, count: int) -> dict[str, object]:
    wishes = [
        Wish(f"{share}", seed, None, (f"prune.sparsity={(share + 1) / (SHARES + 1):.3f}",))
        for seed, share in (divmod(number, SHARES) for number in range(count))
    ]
    ledger = Ledger(repository, rev)
    times = [time.perf_counter()]
    asked = planning.expand(repository, rev, "scale", wishes, ["report"])
    times.append(time.perf_counter())
    jobs = planning.jobs(truth.stages(repository, rev), asked, ledger.done, apart=False)
    times.append(time.perf_counter())
    by_name = {one.name: one for one in asked}
    starts = {ledger.start(job, by_name[job.points[0]]) for job in jobs}
    times.append(time.perf_counter())
    repository.create(dict(starts))
    times.append(time.perf_counter())
    listed = repository.refs(f"{STARTS}/*")
    times.append(time.perf_counter())
    assert listed == dict(starts)
    steps = zip(("expand", "jobs", "start commits", "push them", "list them"), times, times[1:], strict=False)
    peaks = {who: resource.getrusage(kind).ru_maxrss for who, kind in PROCESSES.items()}
    return {
        "n": count,
        "commit": rev,
        "points": len(by_name),
        "jobs": len(jobs),
        "starts": len(starts),
        "seconds": {name: round(after - before, 3) for name, before, after in steps},
        "processor_seconds": {who: round(sum(resource.getrusage(kind)[:2]), 1) for who, kind in PROCESSES.items()},
        "peak_rss_megabytes": {who: round(peak / 1024, 1) for who, peak in peaks.items()},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("dvc", "ruamel.yaml", "pydantic")}
        | {"python": sys.version.split()[0]},
    }


PROCESSES = {"coordinator": resource.RUSAGE_SELF, "children": resource.RUSAGE_CHILDREN}

if __name__ == "__main__":
    main()
