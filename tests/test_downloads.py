"""Only the published file is kept, and an error says which file to put where."""

import ast
import gc
import hashlib
import importlib.util
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

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
CONTENT = b"published" * 5000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.zip").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as running:
        threading.Thread(target=partial(running.serve_forever, poll_interval=0.01), daemon=True).start()
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


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/a.zip", "ConnectionError"),
        ("http://no-such-host.invalid/a.zip", "ConnectionError"),
        ("{server}/b.zip", "status 404"),
    ],
)
def test_without_the_file_the_error_says_which_to_put_where(
    wanted: Download, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    change(monkeypatch, wanted, url=url.format(server=server))
    place = tmp_path / "home" / "downloads" / "a.zip"
    with pytest.raises(Refusal) as refusal:
        downloads.fetch("trashnet", tmp_path / "home")
    for part in (f"cannot be fetched ({reason})", wanted.digest, str(place), "prepare.source.path"):
        assert part in str(refusal.value)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    assert downloads.fetch("trashnet", tmp_path / "home") == place


def test_what_must_be_fetched_by_hand_says_where(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"kaggle.com/.*intel.* set prepare\.source\.path"):
        downloads.fetch("intel", tmp_path)


def test_digests_are_those_of_torchvision() -> None:
    """Read, not imported: torchvision takes seconds."""
    found = importlib.util.find_spec("torchvision")
    assert found
    assert found.origin
    folder = Path(found.origin).parent / "datasets"
    kinds = ast.parse((folder / "cifar.py").read_text()).body
    for name in ("cifar10", "cifar100"):
        [kind] = [node for node in kinds if isinstance(node, ast.ClassDef) and node.name == name.upper()]
        told = {ast.unparse(one.targets[0]): one.value for one in kind.body if isinstance(one, ast.Assign)}
        url, file, digest = (ast.literal_eval(told[field]) for field in ("url", "filename", "tgz_md5"))
        assert downloads.DOWNLOADS[name] == Download(url, file, f"md5:{digest}")
    constants = {
        one.value for one in ast.walk(ast.parse((folder / "eurosat.py").read_text())) if isinstance(one, ast.Constant)
    }
    assert {downloads.DOWNLOADS["eurosat"].url, downloads.DOWNLOADS["eurosat"].digest.removeprefix("md5:")} <= constants
