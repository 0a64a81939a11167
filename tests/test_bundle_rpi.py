"""The bundle for any Linux, as it lies on a device: run as a person would, and its parts against other code."""

import importlib.util
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from lightvision import bundle
from lightvision.bundles import winner
from lightvision.runs import SHIPPED
from stages.core import devices, hardware
from stages.core.running.sources import ROOT
from tests import made_bundle, made_files

HERE = ROOT / "lightvision" / "bundles" / "rpi"
RED, BLUE = (250, 10, 10), (10, 10, 250)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        made_bundle.enter(folder, patch)
        bundle.write("rpi", winner.given(Path(SHIPPED, "quantized.onnx")), Path("bundle"))
    return folder / "bundle"


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | environment, timeout=60)


def part(name: str) -> ModuleType:
    """A file of the bundle that needs no other."""
    spec = importlib.util.spec_from_file_location(f"bundled_{name}", HERE / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


camera, device = part("camera"), part("device")


@pytest.mark.slow
def test_the_device_is_checked_against_where_the_bundle_was_made(made: Path, tmp_path: Path) -> None:
    done = run(made, "run.py", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["passed"]
    assert told["agreement"] == 1.0
    other = tmp_path / "other"
    shutil.copytree(made, other)
    with np.load(other / "checks.npz") as held:
        np.savez(other / "checks.npz", images=held["images"], probabilities=held["probabilities"][:, [1, 2, 0]])
    done = run(other, "run.py", "--check")
    assert done.returncode == 1
    assert json.loads(done.stdout)["agreement"] == 0.0


@pytest.mark.slow
def test_pictures_are_answered_line_by_line(made: Path, tmp_path: Path) -> None:
    made_files.picture(tmp_path / "pictures" / "a.png", RED)
    (tmp_path / "pictures" / "b.png").write_text("no picture")
    made_files.picture(tmp_path / "pictures" / "c.jpg", BLUE)
    done = run(made, "run.py", "--top", "3", str(tmp_path / "pictures"))
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (1, "")
    assert (first["class"], third["class"]) == ("red", "blue")
    [expected] = made_files.expected(RED)
    assert [one["probability"] for one in first["top"]] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
    assert second["error"] == "it is no picture of a known kind"
    assert 0 < first["model_ms"] < first["ms"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--check", "a.png"], ["--top", "0", "a.png"], ["--camera", "--size", "7x7"]])
def test_a_wrong_command_line_is_said(words: list[str], made: Path) -> None:
    done = run(made, "run.py", *words)
    assert done.returncode == 2
    assert "error: " in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_camera_is_read_through_a_pipe(made: Path, tmp_path: Path) -> None:
    """Red frames, then it ends by itself; and one that has no such program."""
    program = tmp_path / "rpicam-vid"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, time\n"
        "width, height = (int(sys.argv[sys.argv.index(name) + 1]) for name in ('--width', '--height'))\n"
        "assert sys.argv[-2:] == ['--output', '-'] and 'yuv420' in sys.argv\n"
        "pixels = width * height\n"
        "red = bytes([76]) * pixels + bytes([85]) * (pixels // 4) + bytes([255]) * (pixels // 4)\n"
        "for _ in range(3):\n"
        "    sys.stdout.buffer.write(red); sys.stdout.flush(); time.sleep(0.2)\n"
        "sys.exit('the cable fell out')\n"
    )
    program.chmod(0o755)
    done = run(made, "run.py", "--camera", "--size", "128x96", PATH=str(tmp_path))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert 1 <= len(lines) <= 3
    assert {line["class"] for line in lines} == {"red"}
    assert (done.returncode, done.stderr) == (1, "run.py: rpicam-vid ended: the cable fell out\n")
    done = run(made, "run.py", "--camera", "--frames", "1", "--size", "128x96", PATH=str(tmp_path))
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")
    assert "is here: `sudo apt install" in run(made, "run.py", "--camera", "ffmpeg", PATH=str(tmp_path)).stderr
    assert "a multiple" in run(made, "run.py", "--camera", "--size", "100x100", PATH=str(tmp_path)).stderr


def test_frames_have_the_colours_that_pillow_gives_them() -> None:
    size = camera.Size(64, 48)
    generator = np.random.default_rng(0)
    bright = generator.integers(256, size=(48, 64), dtype=np.uint8)
    blue, red = generator.integers(256, size=(2, 24, 32), dtype=np.uint8)
    frame = np.concatenate([bright.ravel(), blue.ravel(), red.ravel()])
    whole = [one.repeat(2, axis=0).repeat(2, axis=1) for one in (blue, red)]
    expected = np.asarray(Image.fromarray(np.stack([bright, *whole], axis=-1), mode="YCbCr").convert("RGB"))
    difference = np.abs(camera.from_yuv420(frame, size).astype(int) - expected.astype(int))
    assert difference.max() <= 1


def test_who_is_slow_gets_the_newest_frame() -> None:
    """Ten frames at once, of which nine were never looked at."""
    newest: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=1)

    def see() -> None:
        for number in range(10):
            camera._put(newest, np.array([number]))

    seeing = threading.Thread(target=see, daemon=True)
    seeing.start()
    seeing.join(5)
    assert not seeing.is_alive()
    last = newest.get()
    assert last is not None
    assert last[0] == 9


@pytest.mark.slow
def test_a_file_is_answered_once_it_has_arrived(made: Path, tmp_path: Path) -> None:
    """Not what was there before, not a half of it, and anew when it is written anew."""
    made_files.picture(tmp_path / "before.png", RED)
    command = [sys.executable, str(made / "run.py"), "--watch", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as going:
        assert going.stdout
        try:
            lines = (json.loads(line) for line in going.stdout)
            held = made_files.picture(tmp_path.with_name("held.png"), RED, (400, 400)).read_bytes()
            stop = threading.Event()

            def write_slowly() -> None:
                """Again and again, until it is answered: the watcher may still be starting."""
                while not stop.wait(1.0):
                    with (tmp_path / "new.png").open("wb") as stream:
                        for at in range(0, len(held), len(held) // 5):
                            stream.write(held[at : at + len(held) // 5])
                            stream.flush()
                            time.sleep(0.05)

            writer = threading.Thread(target=write_slowly)
            writer.start()
            found = next(lines)
            stop.set()
            writer.join()
            assert (Path(found["picture"]).name, found.get("class")) == ("new.png", "red")
        finally:
            going.terminate()
        assert going.wait(10) == 0


@pytest.mark.slow
def test_no_link_ends_the_watch_and_no_folder_is_said(made: Path, tmp_path: Path) -> None:
    """Links in a ring and into nothing lie there; then a picture comes whose name is no text; then the folder goes."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "ring.png").symlink_to("ring.png")
    (place / "nowhere.png").symlink_to("not there")
    held = made_files.picture(tmp_path / "held.png", RED).read_bytes()
    arrived = place / os.fsdecode(b"\xff\x1b.png")
    command = [sys.executable, str(made / "run.py"), "--watch", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as going:
        assert going.stdout
        assert going.stderr
        stop = threading.Event()

        def write() -> None:
            while not stop.wait(1.0):
                arrived.write_bytes(held)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            line = going.stdout.readline()
        finally:
            stop.set()
            writer.join()
        shutil.rmtree(place)
        assert going.wait(10) == 1
        assert going.stderr.read() == f"run.py: {place} cannot be looked into: No such file or directory\n"
    assert line.isascii()
    told = json.loads(line)
    assert (told["picture"], told["class"]) == (f"{place}/\\xff\x1b.png", "red")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"no program\n", "rpicam-vid cannot be started: Exec format error"),
        (b"#!/bin/sh\nprintf 'bad \\377\\033[31m' >&2\n", "rpicam-vid ended: bad \ufffd\\x1b[31m"),
    ],
)
def test_what_a_camera_says_is_told_whatever_it_is(program: bytes, said: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / "rpicam-vid").write_bytes(program)
    (tmp_path / "rpicam-vid").chmod(0o755)
    done = run(made, "run.py", "--camera", PATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"run.py: {said}\n")


@pytest.mark.slow
def test_what_cannot_be_measured_is_said_before(made: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_text("no network")
    (tmp_path / "model.onnx").write_bytes((made / "model.onnx").read_bytes())
    twice = (str(tmp_path / "model.onnx"), str(tmp_path / "." / "model.onnx"))
    for words, said in (
        (["--out", str(tmp_path / "none" / "a.json")], "there is no folder"),
        ([str(tmp_path / "other.onnx")], "does not load in ONNX Runtime"),
        (twice, "would both be called model"),
    ):
        done = run(made, "benchmark.py", *words)
        assert done.returncode
        assert "Traceback" not in done.stderr
        assert said in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_benchmark_is_what_the_report_reads(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "board.json"
    done = run(made, "benchmark.py", "--rounds", "6", "--seconds", "0.1", "--name", "board", "--out", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [measured] = devices.read(tmp_path)
    assert (measured.device, measured.agreement) == ("board", 1.0)
    assert measured.products == hardware.integer_products()
    facts = measured.files["quantized"]
    assert facts["bytes"] == (made / "model.onnx").stat().st_size
    for way in ("one_thread", "all_threads"):
        assert 0 < facts[way]["low"] <= facts[way]["median"] <= facts[way]["high"]
        assert facts[way]["rounds"] == 6
        assert facts[way]["calls"] >= 18


def test_intervals_of_a_median_hold_what_they_promise(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(made))
    benchmark = part("benchmark")
    for rounds in (6, 7, 15, 25, 60):
        outside = benchmark.rank(rounds, 0.95)
        surely = [1 - 2 * stats.binom.cdf(at, rounds, 0.5) for at in (outside, outside + 1)]
        assert surely[0] >= 0.95 > surely[1]
    assert 1 - 2 * stats.binom.cdf(0, benchmark.fewest_rounds(0.95) - 1, 0.5) < 0.95
    told = benchmark.summary([[3.0, 1.0, 2.0], [5.0], [4.0], [6.0], [7.0], [8.0]])
    assert (told["median"], told["low"], told["high"], told["noisy"], told["calls"]) == (5.5, 2.0, 8.0, True, 8)


def test_products_are_what_the_project_says_of_such_processors() -> None:
    for several in range(4):
        for flags in itertools.combinations(
            ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "asimddp"), several
        ):
            assert device.products(set(flags)) == hardware.multiplier(set(flags)).products


def test_requirements_are_those_that_the_project_is_tested_with() -> None:
    ours, theirs = (_pinned(path) for path in (HERE / "requirements.txt", ROOT / "requirements.lock"))
    assert {"onnxruntime", "pillow"} <= {name for name, _ in ours}
    assert ours.items() <= theirs.items()
    assert "://" not in (HERE / "requirements.txt").read_text()


def _pinned(path: Path) -> Mapping[tuple[str, str], str]:
    lines = [line.rstrip(" \\") for line in path.read_text().splitlines() if "==" in line.partition(";")[0]]
    return {
        (name, marker.strip()): version.strip()
        for line in lines
        for (pin, _, marker) in [line.partition(";")]
        for (name, _, version) in [pin.partition("==")]
    }


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = (HERE / "lightvision.service").read_text().replace("/opt/lightvision/.venv/bin/python", sys.executable)
    (tmp_path / "lightvision.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "lightvision.service"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
