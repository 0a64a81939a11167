"""Points of a sweep end as if nothing had happened, whatever happens."""

import pytest

from tests.cluster import checks
from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.slow


def test_undisturbed(cluster: Cluster) -> None:
    checks.whole(cluster, cluster.sweep("undisturbed"))
