"""One cluster for all tests of faults that a process of pytest runs; it takes half a minute to be there."""

from collections.abc import Iterator

import pytest

from tests.cluster import world
from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def standing() -> Iterator[Cluster]:
    if reason := world.lacking():
        pytest.skip(reason)
    with world.World(gpus=2, cpus=1) as here:
        yield Cluster(here).begin()


@pytest.fixture
def cluster(standing: Cluster) -> Cluster:
    standing.clear()
    return standing
