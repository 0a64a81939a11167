"""What is done, as a coordinator sees it, and the commits that say so."""

from collections.abc import Container

from flows.core.planning import Asked, Job
from flows.core.repository import Repository


class Ledger:
    """Results by the keys of their stages: the entry in dvc.lock, and the files that git keeps."""

    def __init__(self, repository: Repository, baseline: str) -> None:
        self.repository = repository
        self.baseline = baseline

    @property
    def done(self) -> Container[str]:
        """Keys of stages."""
        raise NotImplementedError

    def learn(self, rev: str) -> set[str]:
        """What is proven in a commit and agrees with what is known counts from now on; these keys are new."""
        raise NotImplementedError

    def start(self, job: Job, asked: Asked) -> tuple[str, str]:
        """A ref and its commit: the baseline with the parameters of one of the job's points and all that the job needs.

        The ref tells starts of one job apart, `<job key>/<commit>`: coordinators may have other results of its makers.
        """
        raise NotImplementedError

    def accept(self, job: Job, rev: str) -> set[str]:
        """Of a child of any start of this job, what it proves of the job's stages; nothing else is taken."""
        raise NotImplementedError

    def experiment(self, asked: Asked) -> str:
        """The point as DVC's experiment on the baseline."""
        raise NotImplementedError

    def branch_commit(self, tip: str, asked: Asked) -> str:
        """What the branch's own parameters came to, on top of it."""
        raise NotImplementedError
