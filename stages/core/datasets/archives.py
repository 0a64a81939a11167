"""Zip (and with it npz) and tar files, unpacked once and safely: nothing leaves its folder or swells without bound."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from tarfile import HeaderError, ReadError, TarFile, TarInfo
from typing import IO, Self

from filelock import FileLock

from stages.core.running import files, progress
from stages.core.running.errors import Refusal

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SWELLING, HARMLESS = 200, 2**28  # times the archive's size, and bytes below which that does not matter
SPARE = 2**26  # bytes of the disk that are left to others
BLOCK = 2**20
# NotImplementedError: a kind of compression that zipfile lacks; ValueError: numbers of a header that are none
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)
SPECIAL = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


@dataclass(frozen=True)
class Entry:
    """A regular file in an archive."""

    name: str
    content: IO[bytes]


class Member(TarInfo):
    """Python takes a damaged header, or the lack of one, for the end of the archive; what follows would be lost."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the zeros that end an archive
                raise
            raise ReadError(str(error)) from error


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(ENDINGS)


def unpack(path: Path, home: Path) -> Path:
    """The folder of its files, below `home`; an archive of the same content is unpacked once."""
    target = home / "unpacked" / f"{path.name.partition('.')[0]}-{files.digest(path)[:16]}"
    if not target.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "unpacking.lock"):
            if not target.is_dir():
                _unpack(path, target)
    return target


def _unpack(path: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    files.remove(partial)
    partial.mkdir(parents=True)
    try:
        _write_all(path, partial)
        os.replace(partial, target)
    except DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # it comes from gzip or bz2, not from the system
            raise _damaged(path, error) from error
        raise
    finally:
        files.remove(partial)


def _damaged(path: Path, error: Exception) -> Refusal:
    return Refusal(f"{path} is damaged or no archive that can be read ({error}): fetch it again")


def _write_all(path: Path, folder: Path) -> None:
    most = max(HARMLESS, SWELLING * path.stat().st_size)
    room = shutil.disk_usage(folder).free - SPARE
    written = 0
    with _entries(path) as entries:
        for entry in progress.track(entries, f"unpack {path.name}", None):
            with _new(path, folder / entry.name) as stream:
                while block := entry.content.read(BLOCK):
                    written += len(block)
                    if written > most:
                        raise Refusal(f"{path} unpacks to more than {SWELLING} times its size: a decompression bomb")
                    if written > room:
                        raise Refusal(f"{path} unpacks to more than the {room / 2**30:.1f} GiB that {folder} has free")
                    with files.writing(folder / entry.name):
                        stream.write(block)


def _new(path: Path, target: Path) -> IO[bytes]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise Refusal(f"{path} holds two entries for {target.name}: unpack it yourself and give the folder") from error


@contextmanager
def _entries(path: Path) -> Iterator[Iterator[Entry]]:
    if path.name.lower().endswith((".zip", ".npz")):
        with zipfile.ZipFile(path) as archive, closing(_of_zip(path, archive)) as entries:
            yield entries
    else:
        with tarfile.open(path, "r:*", tarinfo=Member) as archive, closing(_of_tar(path, archive)) as entries:
            yield entries


def _of_zip(path: Path, archive: zipfile.ZipFile) -> Generator[Entry, None, None]:
    for info in archive.infolist():
        name = _safe(path, info.orig_filename)
        if info.is_dir() or _is_beside(name):
            continue
        if info.flag_bits & 1:
            raise Refusal(f"{path} is encrypted: unpack it yourself and give the folder")
        if stat.S_IFMT(info.external_attr >> 16) in SPECIAL:
            raise Refusal(f"{path}: {name} is a link or a device, which a data set has no use for")
        with archive.open(info) as content:
            yield Entry(name, content)


def _of_tar(path: Path, archive: tarfile.TarFile) -> Generator[Entry, None, None]:
    for member in archive:
        name = _safe(path, member.name, member.isdir())
        if member.isdir() or _is_beside(name):
            continue
        if not member.isreg():
            raise Refusal(f"{path}: {name} is a link or a device, which a data set has no use for")
        content = archive.extractfile(member)
        if content is not None:
            yield Entry(name, content)
    while archive.fileobj and archive.fileobj.read(BLOCK):  # gzip compares its checksum at the very end
        pass


def _is_beside(name: str) -> bool:
    return "__MACOSX" in PurePosixPath(name).parts


def _safe(path: Path, name: str, is_folder: bool = False) -> str:
    """Refused rather than mended: whoever writes such names means no good, or has packed the wrong thing."""
    plain = name.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if plain.startswith("/") or ".." in parts or "\0" in plain or PureWindowsPath(plain).drive:
        raise Refusal(f"{path}: the entry {name!r} would be written outside its folder; do not trust this archive")
    if not parts and not is_folder:
        raise Refusal(f"{path}: an entry has no name; do not trust this archive")
    return plain
