"""What it costs a coordinator to believe a result: the list of refs, and the DVC remote's answer. Run on a host.

python -m tests.cluster.accepting REPOSITORY STAGE ...
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flows.core import remote
from flows.core.repository import Repository
from flows.core.work import JOBS

LOOKS = 5


def main(url: str, stages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository.open(url, Path(folder) / "mirror.git")
        repository.fetch(f"{JOBS}/*")
        results = repository.refs(f"{JOBS}/*")
        lists = [took(lambda: repository.refs(f"{JOBS}/*")) for _ in range(LOOKS)]
        checks = [took(lambda rev=rev: remote.missing_at(repository, rev, stages)) for rev in results.values()]
    print(json.dumps({"refs": len(results), "list": lists, "check": checks[1:]}))  # the first one imports


def took(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
