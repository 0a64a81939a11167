"""What a job says of itself: to the coordinator by its state, to people by its progress."""

import logging
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows import job, showing
from flows.core.work import Work
from flows.core.workspace import HostTrouble, StageFailed
from flows.showing import Progress

WORK = Work(
    repository="r",
    baseline="b",
    start="s",
    start_ref="refs/s",
    stages=("one",),
    target="refs/t",
    title="title",
    experiment="e",
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(showing.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, str]]:
    """Artifacts as they are made and changed: their keys, percents and words."""
    seen: list[tuple[str, float, str]] = []
    keys: dict[UUID, str] = {}

    def create(progress: float, key: str, description: str) -> UUID:
        keys[name := uuid4()] = key
        seen.append((key, progress, description))
        return name

    def update(artifact: UUID, progress: float, description: str) -> None:
        seen.append((keys[artifact], progress, description))

    monkeypatch.setattr(showing, "create_progress_artifact", create)
    monkeypatch.setattr(showing, "update_progress_artifact", update)
    return seen


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        ("0123", "COMPLETED", "0123"),
        (StageFailed("one: no"), "FAILED", "one: no"),
        (HostTrouble("corrupt data/one"), "CRASHED", "corrupt data/one"),
    ],
)
def test_the_state_says_who_is_to_blame_and_where(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, kind: str, reason: str
) -> None:
    def carry_out(work: Work, tell: Any) -> str:
        tell("a line")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(job, "carry_out", carry_out)
    monkeypatch.setattr(job.Host, "name", "host-7")
    monkeypatch.setattr(job, "get_run_logger", lambda: logging.getLogger("test"))
    state = job.job.fn(WORK)
    assert state.type.value == kind
    assert job.heard(state.message or "") == (reason, "host-7")


def test_a_message_of_prefect_has_no_host() -> None:
    assert job.heard("Process exited with status code: -9") == ("Process exited with status code: -9", "")


def test_progress_is_told_now_and_then_with_what_is_left(
    clock: list[float], shown: list[tuple[str, float, str]]
) -> None:
    progress = Progress()
    progress.hear("Running stage 'train_teacher':")
    for epoch in range(1, 11):
        progress.hear(f"epoch {epoch}/10")
        clock[0] += 2
    progress.hear("Running stage 'distill':")
    progress.hear("epoch 1/100")
    assert shown == [
        ("train-teacher", 10, "train_teacher: epoch 1/10"),
        ("train-teacher", 40, "train_teacher: epoch 4/10, 12 s left"),
        ("train-teacher", 70, "train_teacher: epoch 7/10, 6 s left"),
        ("train-teacher", 100, "train_teacher: epoch 10/10, 0 s left"),
        ("distill", 1, "distill: epoch 1/100"),
    ]


def test_a_second_network_of_a_stage_has_a_time_of_its_own(
    clock: list[float], shown: list[tuple[str, float, str]]
) -> None:
    progress = Progress()
    for epoch, seconds in ((1, 100), (2, 100), (1, 10), (2, 10)):
        progress.hear(f"epoch {epoch}/3")
        clock[0] += seconds
    assert [words for _, _, words in shown][-1] == "job: epoch 2/3, 10 s left"


def test_a_server_that_is_away_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def refuse(progress: float, **_: object) -> None:
        asked.append(progress)
        raise ConnectionError

    monkeypatch.setattr(showing, "create_progress_artifact", refuse)
    Progress().hear("epoch 1/2")
    assert asked == [50]


def test_the_log_has_all_lines_but_not_every_epoch(clock: list[float]) -> None:
    progress = Progress()
    lines = ["x", "epoch 1/9", "epoch 2/9", "y", "epoch 9/9"]
    assert [line for line in lines if progress.wants(line)] == ["x", "epoch 1/9", "y", "epoch 9/9"]
    clock[0] += showing.PAUSE
    assert progress.wants("epoch 3/9")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_times_are_said_as_people_do(seconds: float, said: str) -> None:
    assert showing.lasts(seconds) == said
