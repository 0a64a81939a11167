"""What a commit is worth: the key each stage has there, and which results are proven by git and dvc.lock alone."""

from flows.core.repository import Repository
from stages.core.running.pipeline import Stage


def stages(repository: Repository, rev: str) -> dict[str, Stage]:
    """Those of the commit's dvc.yaml."""
    raise NotImplementedError


def keys(repository: Repository, rev: str, params_text: str | None = None) -> dict[str, str]:
    """What each stage would be made of with these parameters, or the commit's own; known before anything runs."""
    raise NotImplementedError


def proven(repository: Repository, rev: str) -> dict[str, str]:
    """Keys of the stages whose entries in dvc.lock agree with all else in the commit, and with their proven makers."""
    raise NotImplementedError
