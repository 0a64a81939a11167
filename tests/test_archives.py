"""What is packed is unpacked whole, inside its folder, or not at all."""

import io
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.core.datasets import archives
from stages.core.running.errors import Refusal

FILES = {"pictures/cats/1.png": b"one", "pictures/dogs/2.png": b"two" * 1000}


def make_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, entries: dict[str, bytes]) -> Path:
    mode = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}[path.suffix]
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_was_left(home: Path) -> bool:
    return not (home / "unpacked").exists() or not any((home / "unpacked").iterdir())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_an_archive_gives_its_files(tmp_path: Path, name: str) -> None:
    make: Callable[[Path, dict[str, bytes]], Path] = make_zip if name.endswith("zip") else make_tar
    path = make(tmp_path / name, FILES | {"__MACOSX/pictures/cats/._1.png": b"not ours"})
    assert archives.is_archive(path)
    folder = archives.unpack(path, tmp_path / "home")
    assert contents(folder) == FILES


def test_it_is_unpacked_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    first = archives.unpack(path, tmp_path / "home")
    shutil.copy(path, tmp_path / "a.copy.zip")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_write_all", lambda *_: pytest.fail("unpacked again"))
        assert archives.unpack(path, tmp_path / "home") == first
    make_zip(path, {"other.png": b"x"})
    assert contents(archives.unpack(path, tmp_path / "home")) == {"other.png": b"x"}


@pytest.mark.parametrize(
    "name",
    ["../out.png", "a/../../out.png", "/tmp/out.png", "..\\out.png", "C:\\out.png", "C:out.png", "../out.png/"],  # noqa: S108 - not written
)
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_entry_that_would_leave_is_refused(tmp_path: Path, name: str, ending: str) -> None:
    make: Callable[[Path, dict[str, bytes]], Path] = make_zip if ending == "zip" else make_tar
    path = make(tmp_path / f"a.{ending}", {"fine.png": b"x", name: b"evil"})
    with pytest.raises(Refusal, match="outside its folder"):
        archives.unpack(path, tmp_path / "home" / "deep")
    assert nothing_was_left(tmp_path / "home" / "deep")
    assert not list(tmp_path.rglob("out.png"))


def link_in_tar(path: Path, kind: bytes, target: str) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, target
        archive.addfile(member)
        inside = tarfile.TarInfo("link/out.png")
        archive.addfile(inside, io.BytesIO(b""))
    return path


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = link_in_tar(tmp_path / "a.tar", kind, "..")
    with pytest.raises(Refusal, match="link is a link or a device"):
        archives.unpack(path, tmp_path / "home")
    assert nothing_was_left(tmp_path / "home")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        archive.writestr(info, "..")
    with pytest.raises(Refusal, match="link is a link"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "home")


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_bomb_is_stopped_while_it_swells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.setattr(archives, "HARMLESS", 2**20)
    make: Callable[[Path, dict[str, bytes]], Path] = make_zip if ending == "zip" else make_tar
    path = make(tmp_path / f"a.{ending}", {f"{n}.png": bytes(2**21) for n in range(8)})
    written: list[int] = []
    write = archives._write_all

    def counted(source: Path, folder: Path) -> None:
        try:
            write(source, folder)
        finally:
            written.append(sum(file.stat().st_size for file in folder.rglob("*.png")))

    monkeypatch.setattr(archives, "_write_all", counted)
    with pytest.raises(Refusal, match="200 times its size: a decompression bomb"):
        archives.unpack(path, tmp_path / "home")
    assert written[0] <= 200 * path.stat().st_size + 2**20
    assert nothing_was_left(tmp_path / "home")


def test_what_swells_and_is_small_is_no_bomb(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"black.bmp": bytes(2**22)})
    assert 200 * path.stat().st_size < 2**22
    assert contents(archives.unpack(path, tmp_path / "home")) == {"black.bmp": bytes(2**22)}


def test_too_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=archives.SPARE + 100))
    with pytest.raises(Refusal, match=r"GiB that .* has free"):
        archives.unpack(make_zip(tmp_path / "a.zip", FILES), tmp_path / "home")
    assert nothing_was_left(tmp_path / "home")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    make: Callable[[Path, dict[str, bytes]], Path] = make_zip if name.endswith("zip") else make_tar
    path = make(tmp_path / name, {"noise.png": os.urandom(50_000)})
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(Refusal, match=rf"{name} is damaged"):
        archives.unpack(path, tmp_path / "home")
    assert nothing_was_left(tmp_path / "home")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("noise.png", bytes(1000))
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match="damaged"):
        archives.unpack(path, tmp_path / "home")


@pytest.mark.parametrize("names", [("a", "a/b.png"), ("a/b.png", "a"), ("a.png", "a.png"), (".",)])
@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_in_each_other_s_way_are_refused(tmp_path: Path, names: Sequence[str], ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    with pytest.raises(Refusal, match="has no name" if names == (".",) else "two entries for"):
        archives.unpack(path, tmp_path / "home")
    assert nothing_was_left(tmp_path / "home")


def test_a_folder_packed_as_itself_is_fine(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("./a.png"), io.BytesIO(b""))
    assert contents(archives.unpack(tmp_path / "a.tar", tmp_path / "home")) == {"a.png": b""}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_whatever_is_damaged_no_picture_is_lost_without_a_word(tmp_path: Path, name: str) -> None:
    """Cut anywhere or with a flipped bit: refused, or unpacked with every entry."""
    chance = random.Random(0)  # noqa: S311 - damage is no secret
    make: Callable[[Path, dict[str, bytes]], Path] = make_zip if name.endswith("zip") else make_tar
    path = make(tmp_path / name, {f"{n}.png": chance.randbytes(700) for n in range(6)})
    whole = path.read_bytes()
    refused = 0
    for number in range(60):
        content = bytearray(whole)
        if number % 2:
            del content[chance.randrange(1, len(content) - (1024 if name == "a.tar" else 1)) :]
        else:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            assert len(contents(archives.unpack(path, tmp_path / "home"))) == 6
        except Refusal:
            refused += 1
        shutil.rmtree(tmp_path / "home")
    assert refused >= 30


def test_a_tar_damaged_between_its_entries_is_named(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"a.png": b"x", "b.png": b"y", "c.png": b"z"})
    content = bytearray(path.read_bytes())
    content[1024] ^= 1  # the name of the second, which its checksum covers
    path.write_bytes(content)
    with pytest.raises(Refusal, match="damaged"):
        archives.unpack(path, tmp_path / "home")
    path.write_bytes(make_tar(tmp_path / "b.tar", FILES).read_bytes()[:1024])
    with pytest.raises(Refusal, match="damaged"):
        archives.unpack(path, tmp_path / "home")


def test_a_checksum_behind_all_entries_is_compared(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar.gz", {"noise.png": os.urandom(100_000)})
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match="damaged"):
        archives.unpack(path, tmp_path / "home")


def test_processes_that_need_the_same_archive_wait_for_one_another(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {f"{n}.png": os.urandom(100) for n in range(1000)})
    code = (
        "import sys; from pathlib import Path; from stages.core.datasets import archives;"
        "print(len(list(archives.unpack(Path(sys.argv[1]), Path(sys.argv[2])).iterdir())))"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "home")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in running] == ["1000\n"] * 3


def test_an_encrypted_archive_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.png": b"x"})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match="is encrypted"):
        archives.unpack(path, tmp_path / "home")


def test_what_a_killed_process_left_is_not_taken(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    folder = archives.unpack(path, tmp_path / "home")
    shutil.rmtree(folder)
    half = folder.with_name(folder.name + ".partial")
    (half / "pictures").mkdir(parents=True)
    (half / "pictures" / "half.png").write_bytes(b"ha")
    assert contents(archives.unpack(path, tmp_path / "home")) == FILES
