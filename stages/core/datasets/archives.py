"""Zip (and with it npz) and tar files, unpacked once and safely: nothing leaves its folder or swells without bound."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from stages.core.running import files, progress
from stages.core.running.errors import Refusal

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SWELLING, HARMLESS = 200, 2**28  # times the archive's size, and bytes below which that does not matter
SPARE = 2**26  # bytes of the disk that are left to others
BLOCK = 2**20


@dataclass(frozen=True)
class Entry:
    """A regular file in an archive."""

    name: str
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(ENDINGS)


def unpack(path: Path, home: Path) -> Path:
    """The folder of its files, below `home`; an archive of the same content is unpacked once."""
    target = home / "unpacked" / f"{path.name.partition('.')[0]}-{files.digest(path)[:16]}"
    if target.is_dir():
        return target
    partial = target.with_name(target.name + ".partial")
    files.remove(partial)
    partial.mkdir(parents=True)
    try:
        _write_all(path, partial)
        os.replace(partial, target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise Refusal(f"{path} is damaged or no archive that can be read ({error}): fetch it again") from error
    finally:
        files.remove(partial)
    return target


def _write_all(path: Path, folder: Path) -> None:
    most = max(HARMLESS, SWELLING * path.stat().st_size)
    room = shutil.disk_usage(folder).free - SPARE
    written = 0
    with _entries(path) as entries:
        for entry in progress.track(entries, f"unpack {path.name}", None):
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.writing(target), target.open("wb") as stream:
                while block := entry.content.read(BLOCK):
                    written += len(block)
                    if written > most:
                        raise Refusal(f"{path} unpacks to more than {SWELLING} times its size: a decompression bomb")
                    if written > room:
                        raise Refusal(f"{path} unpacks to more than the {room / 2**30:.1f} GiB that {folder} has free")
                    stream.write(block)


@contextmanager
def _entries(path: Path) -> Iterator[Iterator[Entry]]:
    if path.name.lower().endswith((".zip", ".npz")):
        with zipfile.ZipFile(path) as archive:
            yield _of_zip(path, archive)
    else:
        with tarfile.open(path, "r:*") as archive:
            yield _of_tar(path, archive)


def _of_zip(path: Path, archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        if info.is_dir() or _is_beside(info.filename):
            continue
        if info.flag_bits & 1:
            raise Refusal(f"{path} is encrypted: unpack it yourself and give the folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Refusal(f"{path}: {info.filename} is a link, which a data set has no use for")
        name = _safe(path, info.orig_filename)
        with archive.open(info) as content:
            yield Entry(name, content)


def _of_tar(path: Path, archive: tarfile.TarFile) -> Iterator[Entry]:
    for member in archive:
        if member.isdir() or _is_beside(member.name):
            _safe(path, member.name)
            continue
        if not member.isreg():
            raise Refusal(f"{path}: {member.name} is a link or a device, which a data set has no use for")
        name = _safe(path, member.name)
        content = archive.extractfile(member)
        if content is not None:
            yield Entry(name, content)


def _is_beside(name: str) -> bool:
    return "__MACOSX" in PurePosixPath(name).parts


def _safe(path: Path, name: str) -> str:
    """Refused rather than mended: whoever writes such names means no good, or has packed the wrong thing."""
    plain = name.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if plain.startswith("/") or ".." in parts or "\0" in plain or (parts and parts[0].endswith(":")):
        raise Refusal(f"{path}: the entry {name!r} would be written outside its folder; do not trust this archive")
    return plain
