"""What coordinators and workers left in git for each other is of no use for ever."""

from collections.abc import Mapping

from flows.core.repository import Repository
from flows.core.work import JOBS, STARTS

KEEP = 14 * 24 * 3600.0  # seconds; experiments stay, whatever they were made of


def tidy(repository: Repository, now: float) -> int:
    """Results older than that go, with the starts of their jobs; how many refs."""
    repository.fetch(f"{JOBS}/*")
    results = repository.refs(f"{JOBS}/*")
    old = {ref for ref, rev in results.items() if now - repository.time(rev) > KEEP}
    young = {_job(ref) for ref in results.keys() - old}
    finished = {_job(ref) for ref in old} - young
    old |= {ref for ref in _starts(repository, finished) if _job(ref) in finished}
    repository.delete(sorted(old))
    return len(old)


def _starts(repository: Repository, jobs: set[str]) -> Mapping[str, str]:
    return repository.refs(f"{STARTS}/*") if jobs else {}


def _job(ref: str) -> str:
    return ref.split("/")[3]
