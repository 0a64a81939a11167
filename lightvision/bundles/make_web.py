"""A page that classifies pictures in the browser, from any static server."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from lightvision.bundles import laying
from lightvision.bundles.winner import Winner
from stages.core.running.errors import Refusal

RUNTIME = "onnxruntime-web@1.30.0"
DIGEST = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # npm's
# the smallest of its builds that knows all operators: neither GPU nor suspended calls
CARRIED = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")  # of ONNX Runtime, as its Python package brings them


def make(winner: Winner, folder: Path, runtime: Path | None = None) -> None:
    """`runtime` is npm's file, where npm cannot be asked for it."""
    shutil.copy(winner.file, folder / "model.onnx")
    place = folder / "runtime"
    place.mkdir()
    with fetched() if runtime is None else given(runtime) as package:
        unpack(package, place)
    for name in NOTICES:
        shutil.copy(Path(str(metadata.distribution("onnxruntime").locate_file(f"onnxruntime/{name}"))), place)
    laying.lay("web", winner, folder, runtime=RUNTIME, megabytes=f"{(place / CARRIED[1]).stat().st_size / 1e6:.0f}")


@contextmanager
def fetched() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", RUNTIME, "--silent", "--pack-destination", folder]
        by_hand = f"run `npm pack {RUNTIME}` where it works, and give the file by --runtime"
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        except FileNotFoundError as error:
            raise Refusal(f"npm is not here, which fetches {RUNTIME}: install it, or {by_hand}") from error
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            raise Refusal(f"npm cannot fetch {RUNTIME} ({_last_line(done.stderr)}): {by_hand}")
        yield found[0]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


@contextmanager
def given(path: Path) -> Iterator[Path]:
    if not path.is_file():
        raise Refusal(f"{path} is no file: --runtime takes what `npm pack {RUNTIME}` wrote")
    yield path


def unpack(package: Path, place: Path) -> None:
    """Only what the page loads, and only of the very package that is known here."""
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != DIGEST:
        raise Refusal(f"{package.name} is another file than the {RUNTIME} that was published ({DIGEST})")
    with tarfile.open(package) as archive:
        for name in CARRIED:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None, f"{RUNTIME} lost {name}, though its digest is right"  # noqa: S101
            with (place / name).open("wb") as target:
                shutil.copyfileobj(member, target)
