"""Worlds, and pages of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.core import params
from stages.core.reporting import (
    charts,
    judging_charts,
    learning_charts,
    pruning_charts,
    quantization_charts,
    rendering,
)
from stages.core.reporting.paper import publishing
from stages.core.running import sources
from tests.reporting.numbers import LESSON, NETWORKS, distilled
from tests.reporting.reader import Page
from tests.reporting.world import Build, World, without_control


@pytest.fixture(scope="session", autouse=True)
def unpublished() -> Iterator[None]:
    """The paper takes seconds, and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "publish", lambda *_: None)
        yield


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    """Without charts and Vega, which take most of the time."""
    monkeypatch.setattr(rendering, "vega", lambda: "")
    for module in (charts, judging_charts, learning_charts, pruning_charts, quantization_charts):
        monkeypatch.setattr(module, "everything", lambda *_: {})
    defaults = params.load(sources.ROOT / "params.yaml")
    return lambda world: Page(world.build(defaults))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    wrong = {name: range(3 * at) for at, name in enumerate(NETWORKS)}
    return World(tmp_path_factory.mktemp("world"), wrong)


@pytest.fixture(scope="session")
def html(world: World) -> str:
    return world.build(params.load(sources.ROOT / "params.yaml"))


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture
def alone(tmp_path: Path) -> World:
    """What the stages write with distill.control: false."""
    world = World(tmp_path)
    world.write("distill", **distilled(LESSON, {"0": (0.876, None)}))
    without_control(world)
    return world
