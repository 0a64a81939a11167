"""A small project, built once."""

import shutil
from pathlib import Path

import pytest

from flows.core.repository import Repository
from tests.flows import small


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.build(tmp_path_factory.mktemp("small"))


@pytest.fixture
def project(_built: Path, tmp_path: Path) -> Path:
    """One of one's own."""
    return shutil.copytree(_built, tmp_path / "project", symlinks=True)


@pytest.fixture
def repository(project: Path) -> Repository:
    return Repository.open(str(project), project.parent / "mirror.git")
