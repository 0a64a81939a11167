"""Only the published file is kept, and an error says which file to put where."""

import gc
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.core.datasets import downloads
from stages.core.datasets.downloads import Download
from stages.core.running.errors import Refusal

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONTENT = b"published" * 5000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.zip").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
    gc.collect()  # of what pooch leaves to the collector, here and not in another test


@pytest.fixture
def wanted(server: str, monkeypatch: pytest.MonkeyPatch) -> Download:
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    found = Download(f"{server}/a.zip", "a.zip", digest)
    monkeypatch.setattr(downloads, "DOWNLOADS", {"trashnet": found})
    return found


def change(monkeypatch: pytest.MonkeyPatch, wanted: Download, **parts: str) -> None:
    monkeypatch.setattr(downloads, "DOWNLOADS", {"trashnet": replace(wanted, **parts)})


def test_the_published_file_is_kept_and_fetched_once(
    wanted: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads.fetch("trashnet", tmp_path / "home")
    assert path.read_bytes() == CONTENT
    change(monkeypatch, wanted, url="http://127.0.0.1:9/a.zip")
    assert downloads.fetch("trashnet", tmp_path / "home") == path


def test_another_file_is_not_kept(wanted: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, wanted, digest="md5:" + "0" * 32)
    with pytest.raises(Refusal, match="another file than the one published"):
        downloads.fetch("trashnet", tmp_path / "home")
    assert not any((tmp_path / "home" / "downloads").iterdir())


def test_a_damaged_copy_is_fetched_again(wanted: Download, tmp_path: Path) -> None:
    (tmp_path / "home" / "downloads").mkdir(parents=True)
    (tmp_path / "home" / "downloads" / "a.zip").write_bytes(CONTENT[:-1])
    assert downloads.fetch("trashnet", tmp_path / "home").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.zip", "http://no-such-host.invalid/a.zip", "{server}/b.zip"])
def test_without_the_file_the_error_says_which_to_put_where(
    wanted: Download, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    change(monkeypatch, wanted, url=url.format(server=server))
    place = tmp_path / "home" / "downloads" / "a.zip"
    with pytest.raises(Refusal) as refusal:
        downloads.fetch("trashnet", tmp_path / "home")
    for part in ("cannot be fetched", wanted.digest, str(place), "prepare.source.path"):
        assert part in str(refusal.value)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    assert downloads.fetch("trashnet", tmp_path / "home") == place


def test_what_must_be_fetched_by_hand_says_where(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"kaggle.com/.*intel.* set prepare\.source\.path"):
        downloads.fetch("intel", tmp_path)


def test_digests_are_those_of_torchvision() -> None:
    import inspect

    from torchvision.datasets import CIFAR10, CIFAR100, EuroSAT

    for name, kind in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        assert downloads.DOWNLOADS[name] == Download(kind.url, kind.filename, f"md5:{kind.tgz_md5}")
    code = inspect.getsource(EuroSAT.download)
    assert downloads.DOWNLOADS["eurosat"].url in code
    assert downloads.DOWNLOADS["eurosat"].digest.removeprefix("md5:") in code
