"""Runs by the names that people have for them."""

from lightvision import remembered, revisions
from lightvision.runs import Run
from stages.core.running.errors import Refusal


def named(name: str) -> Run:
    """`workspace`, an experiment, anything that git knows as a commit, or else a run of MLflow by its id."""
    unknown = f"{name!r} is no experiment (`dvc exp list --all-commits`) and no commit (`git log`) here"
    if found := revisions.named(name):
        return found
    try:
        remembered_run = remembered.named(name)
    except Refusal as refusal:
        raise Refusal(f"{unknown}; {refusal}") from refusal
    if remembered_run is None:
        raise Refusal(f"{unknown}, nor does the id of a run of MLflow begin so")
    return remembered_run
