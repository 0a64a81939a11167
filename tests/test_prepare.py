"""From a listing to four splits: what cannot be used is refused or left out by name, and nothing else changes."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages import prepare
from stages.core import params
from stages.core.datasets import decoding, likeness, storage
from stages.core.datasets.decoding import Seen
from stages.core.running import files, processes, sources
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from tests.conftest import CLASSES, draw

SPLITS = ("train", "calibration", "val", "test")


def prepared(folder: Path, settings: params.Params, source: Path, seed: int = 0, **policy: str) -> Path:
    """Run the stage on `source` with another policy; returns the folder of its outputs."""
    section = settings.prepare.model_copy(
        update={
            "source": params.Own(name="folder", path=str(source)),
            "policy": settings.prepare.policy.model_copy(update=policy),
        }
    )
    return prepared_as(folder, section, seed)


def prepared_as(folder: Path, section: params.Prepare, seed: int = 0) -> Path:
    prepare.main(
        run=Run(folder / "run"),
        prepare=section,
        seed=seed,
        **{name: folder / name for name in SPLITS},
        manifest=folder / "manifest.csv",
        details=folder / "details.json",
        metrics=folder / "prepare.json",
    )
    return folder


def manifest(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "manifest.csv", keep_default_na=False)


@pytest.fixture
def planted(pictures: Path, tmp_path: Path) -> Path:
    """The small world with all that can be wrong in it."""
    root = tmp_path / "planted"
    shutil.copytree(pictures, root)
    (root / "bars" / "broken.png").write_bytes((root / "bars" / "00.png").read_bytes()[:100])
    (root / "bars" / "empty.jpg").write_bytes(b"")
    (root / "bars" / "text.jpg").write_text("not a picture")
    (root / "blobs" / "notes.txt").write_text("nor meant to be one")
    shutil.copy(root / "bars" / "01.png", root / "blobs" / "stolen.png")
    shutil.copy(root / "checks" / "02.png", root / "checks" / "copy.png")
    Image.open(root / "checks" / "03.png").save(root / "checks" / "compressed.jpg", quality=100)
    return root


def test_broken_pictures_stop_the_stage_by_name(planted: Path, tmp_path: Path, settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"3 of 126 .*bars/broken.png \(.*bars/empty.jpg \(it is empty\).*broken: skip"):
        prepared(tmp_path, settings, planted)
    assert not (tmp_path / "train").exists()


def test_what_is_left_out_is_counted_and_listed(planted: Path, tmp_path: Path, settings: params.Params) -> None:
    folder = prepared(tmp_path, settings, planted, broken="skip")
    counts = files.read_json(folder / "prepare.json")
    assert {
        name: counts[name] for name in ("broken", "copies", "conflicting_labels", "near_copies", "other_files")
    } == {
        "broken": 3,
        "copies": 2,
        "conflicting_labels": 1,
        "near_copies": 1,
        "other_files": 1,
    }
    left_out = manifest(folder).query("split == 'excluded'").set_index("name")["note"].to_dict()
    assert left_out.pop("bars/broken.png") != ""
    assert left_out == {
        "bars/empty.jpg": "it is empty",
        "bars/text.jpg": "it is no picture of a known kind",
        "bars/01.png": "its copies bear several labels",
        "blobs/stolen.png": "its copies bear several labels",
    }
    details = files.read_json(folder / "details.json")
    assert [group[0]["name"] for group in details["conflicts"]] == ["bars/01.png"]
    assert [[one["name"] for one in group] for group in details["copies"]] == [["checks/02.png", "checks/copy.png"]]
    assert {one["name"] for one in details["near_copies"][0]["pictures"]} == {"checks/03.png", "checks/compressed.jpg"}


def test_what_is_stored_is_what_was_decoded(planted: Path, tmp_path: Path, settings: params.Params) -> None:
    """Each picture of each split, found again through the manifest, whatever was left out before it."""
    folder = prepared(tmp_path, settings, planted, broken="skip")
    rows = manifest(folder)
    for split in ("train", "val", "test"):
        stored = storage.load(folder / split)
        found = {image.tobytes(): label for image, label in zip(stored.images, stored.labels, strict=True)}
        listed = rows[rows["split"] == split]
        assert len(listed) == len(stored)
        for name, label in zip(listed["name"], listed["class"], strict=True):
            picture = Image.open(planted / name).convert("RGB").resize((8, 8), Image.Resampling.BICUBIC)
            assert stored.facts.classes[found[np.asarray(picture).tobytes()]] == label


def test_conflicting_labels_can_stop_the_stage(planted: Path, tmp_path: Path, settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"1 pictures bear several labels: bars/01.png = blobs/stolen.png"):
        prepared(tmp_path, settings, planted, broken="skip", conflicts="stop")


def test_near_copies_can_share_a_split(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    root = tmp_path / "many"
    shutil.copytree(pictures, root)
    for number in range(20):
        Image.open(root / "checks" / f"{number:02}.png").save(root / "checks" / f"again-{number:02}.jpg", quality=92)
    straddling = {}
    for policy in ("report", "together"):
        (tmp_path / policy).mkdir()
        folder = prepared(tmp_path / policy, settings, root, near_copies=policy)
        straddling[policy] = files.read_json(folder / "prepare.json")["near_copies_across_splits"]
    assert straddling["report"] > 0
    assert straddling["together"] == 0


def test_a_class_that_is_left_out_leaves_no_gap(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    root = tmp_path / "few"
    shutil.copytree(pictures, root)
    for path in sorted((root / "blobs").iterdir())[1:]:
        path.unlink()
    with pytest.raises(Refusal, match="class 'blobs' has 1 different"):
        prepared(tmp_path, settings, root)
    folder = prepared(tmp_path, settings, root, small_classes="exclude")
    split = storage.load(folder / "train")
    assert split.facts.classes == ("bars", "checks")
    assert set(split.labels.tolist()) == {0, 1}


def test_one_class_alone_cannot_be_learnt(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    root = tmp_path / "one"
    shutil.copytree(pictures, root)
    for name in ("blobs", "checks"):
        for path in sorted((root / name).iterdir())[1:]:
            path.unlink()
    with pytest.raises(Refusal, match="1 of 3 classes can be learnt"):
        prepared(tmp_path, settings, root, small_classes="exclude")


def test_another_machine_and_order_give_the_same_files(
    pictures: Path, tmp_path: Path, settings: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere, written in another order, decoded by processes rather than here."""
    other = tmp_path / "elsewhere" / pictures.name
    names = [path.relative_to(pictures) for path in pictures.rglob("*.png")]
    random.Random(1).shuffle(names)  # noqa: S311 - a test's order is no secret
    for name in names:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / name, other / name)
    one = prepared(tmp_path / "one", settings, pictures)
    monkeypatch.setattr(decoding, "FEW", 0)
    two = prepared(tmp_path / "two", settings, other)
    for path in ("manifest.csv", "details.json", "prepare.json", *(f"{split}/split.json" for split in SPLITS)):
        assert (one / path).read_bytes() == (two / path).read_bytes(), path


def test_a_disk_that_is_too_small_is_seen_before(
    pictures: Path, tmp_path: Path, settings: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=decoding.SPARE + 1000))
    with pytest.raises(Refusal, match="GiB of disk for a while"):
        prepared(tmp_path, settings, pictures)


TELL_PEAK = """
import atexit, resource, runpy
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
runpy.run_module("stages", run_name="__main__", alter_sys=True)
"""


def stage(folder: Path, settings: params.Params, source: Path, program: str = "") -> subprocess.CompletedProcess[str]:
    """The command as DVC runs it, or as `program` does."""
    content = settings.model_dump(mode="json")
    content["prepare"]["source"] = {"name": "folder", "path": str(source)}
    folder.mkdir(exist_ok=True)
    YAML().dump(content, folder / "params.yaml")
    options = [f"--{name}={folder / 'data' / name}" for name in (*SPLITS, "manifest", "details")]
    how = ["-c", program] if program else ["-m", "stages"]
    return subprocess.run(
        [sys.executable, *how, "prepare", *options, f"--metrics={folder / 'prepare.json'}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(sources.ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_command_writes_what_main_writes(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    found = stage(tmp_path / "project", settings, pictures)
    assert found.returncode == 0, found.stderr
    here = prepared(tmp_path / "here", settings, pictures)
    assert (here / "manifest.csv").read_bytes() == (tmp_path / "project" / "data" / "manifest").read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path, settings: params.Params) -> None:
    """Peak memory of the stage for 100 MB and for 630 MB of pixels, as it tells itself."""
    large = settings.model_copy(update={"prepare": settings.prepare.model_copy(update={"image_size": 512})})
    generator, peaks = np.random.default_rng(0), []
    for each in (43, 267):
        root = tmp_path / f"of-{each}"
        for label, name in enumerate(CLASSES):
            (root / name).mkdir(parents=True)
            for number in range(each):
                Image.fromarray(draw(label, generator)).save(root / name / f"{number:03}.png")
        found = stage(tmp_path / f"project-{each}", large, root, TELL_PEAK)
        assert found.returncode == 0, found.stderr
        peaks.append(int(found.stdout.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 40, peaks


def with_folder(folder: Path) -> list[psutil.Process]:
    """Processes that were started in it, or to import from it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
def test_a_killed_stage_takes_its_processes_with_it(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    for name in CLASSES:
        for number in range(150):
            (tmp_path / "many" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(pictures / name / "00.png", tmp_path / "many" / name / f"{number}.png")
    content = settings.model_dump(mode="json")
    content["prepare"] |= {"source": {"name": "folder", "path": str(tmp_path / "many")}, "image_size": 1024}
    project = tmp_path / "project"
    project.mkdir()
    YAML().dump(content, project / "params.yaml")
    options = [f"--{name}={project / 'data' / name}" for name in (*SPLITS, "manifest", "details")]
    command = [sys.executable, "-m", "stages", "prepare", *options, f"--metrics={project / 'prepare.json'}"]
    environment = os.environ | {"PYTHONPATH": str(sources.ROOT)}
    with subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.DEVNULL) as process:
        while len(with_folder(project)) < 2 + processes.cores():  # the stage, and who starts its processes
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    deadline = time.monotonic() + 20
    while with_folder(project) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert with_folder(project) == []
    assert not list((project / "data").glob("*"))


def hashes_of(count: int, generator: np.random.Generator) -> list[int]:
    return [int(value) for value in generator.integers(0, 2**63, count, dtype=np.uint64)]


@pytest.mark.parametrize(("width", "bits"), [(8, 7), (16, 3)])
def test_no_pair_of_few_bits_escapes(width: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "NARROW", width)
    monkeypatch.setattr(likeness, "ROWS", 7)
    generator = np.random.default_rng(3)
    codes = hashes_of(400, generator)
    for first in range(0, 400, 2):
        flips = generator.choice(64, size=first // 2 % (bits + 1), replace=False)
        codes[first + 1] = codes[first] ^ sum(1 << int(bit) for bit in flips)
    found = {tuple(pair) for pair in likeness._candidates(np.array(codes, np.uint64)).tolist()}
    assert found == {(first, first + 1) for first in range(0, 400, 2)}


def test_only_what_looks_alike_in_every_colour_is_a_near_copy() -> None:
    """One hash for all, as the worst case: flat pictures, one pattern in two colours, and a brighter copy."""
    pattern = np.random.default_rng(0).integers(0, 200, (16, 16))
    flat, red, green, brighter = (np.zeros((16, 16, 3), np.uint8) for _ in range(4))
    red[..., 0], green[..., 1], brighter[..., 0] = pattern, pattern, pattern * 1.15
    pixels = [flat, flat + 9, red, green, brighter]
    seen = [Seen(content, 7, 100, 100) for content in "abcde"]
    found = likeness.near_copies(seen, pixels)  # pyright: ignore[reportArgumentType]
    assert [(pair.first, pair.second) for pair in found] == [(2, 4)]


@pytest.mark.parametrize(("side", "counts"), [(63, False), (64, True)])
def test_small_pictures_must_be_more_alike(side: int, counts: bool) -> None:
    noise = np.random.default_rng(0)
    pattern = noise.integers(0, 200, (64, 64, 3))
    other = pattern + noise.normal(0, 12, pattern.shape)
    assert 0.96 < likeness._cosine(pattern, other) < 0.99
    seen = [Seen("a", 7, 100, side), Seen("b", 7, 100, 100)]
    assert bool(likeness.near_copies(seen, [pattern, other])) == counts  # pyright: ignore[reportArgumentType]


def test_a_leak_is_seen_past_an_excluded_twin(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    """train holds a copy, which is left out, and a near copy, which is not, of one test picture."""
    root = tmp_path / "given"
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        place = root / ("test" if number % 4 == 0 else "train") / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / path.name)
    judged = root / "test" / "checks" / "00.png"
    shutil.copy(judged, root / "test" / "checks" / "zz.png")
    shutil.copy(judged, root / "train" / "checks" / "a-copy.png")
    Image.open(judged).save(root / "train" / "checks" / "near.jpg", quality=100, subsampling=0)
    folder = prepared(tmp_path, settings, root)
    assert files.read_json(folder / "prepare.json")["near_copies_across_splits"] == 1
    rows = manifest(folder).set_index("name")
    assert rows.loc["train/checks/a-copy.png", "note"] == "a copy of it is in the source's test split"
    [pair] = files.read_json(folder / "details.json")["near_copies"]
    assert sorted(one["split"] for one in pair["pictures"]) == ["test", rows.loc["train/checks/near.jpg", "split"]]


def test_groups_are_what_hangs_together() -> None:
    contents = list("edcbaxyz")
    pairs = [likeness.Pair(0, 1, 1.0), likeness.Pair(1, 2, 1.0), likeness.Pair(3, 4, 1.0), likeness.Pair(6, 7, 1.0)]
    assert likeness.groups(pairs, contents) == {"e": "c", "d": "c", "c": "c", "b": "a", "a": "a", "y": "y", "z": "y"}


def test_the_source_s_own_split_is_kept(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    root = tmp_path / "given"
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        place = root / ("test" if number % 4 == 0 else "train") / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / path.name)
    rows = manifest(prepared(tmp_path, settings, root))
    assert Counter(zip(rows["given"], rows["split"], strict=True)) == {
        ("test", "test"): 30,
        ("train", "train"): 72,
        ("train", "val"): 18,
    }


def test_groups_of_a_csv_go_with_every_picture(pictures: Path, tmp_path: Path, settings: params.Params) -> None:
    table = tmp_path / "labels.csv"
    told = {f"{name}/{n:02}.png": f"camera {n % 3}" for name in CLASSES for n in range(40)}
    lines = [f"{pictures / name},{name.split('/')[0]},{camera},{name}" for name, camera in told.items()]
    table.write_text("path,label,camera,note of mine\n" + "\n".join(lines) + "\n")
    own = params.Own(name="csv", path=str(table))
    section = settings.prepare.model_copy(update={"source": own, "groups": ("camera", "note of mine")})
    folder = prepared_as(tmp_path / "out", section)
    rows = manifest(folder).set_index("name")
    rolls = {split: storage.load(folder / split).roll() for split in ("train", "val", "test")}
    for split, roll in rolls.items():
        assert list(roll.groups) == ["camera", "note of mine"]
        for name, content, camera, note in zip(roll.names, roll.contents, *roll.groups.values(), strict=True):
            assert camera == told[note] == rows.loc[name, "camera"]
            assert name.endswith(note)
            assert (content, split) == (rows.loc[name, "content"], rows.loc[name, "split"])
    assert sum(len(roll.names) for roll in rolls.values()) == 120


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (("camera",), "no column 'camera' tells of bars/00.png; the source tells nothing further, as only a CSV does"),
        (("width",), "'width' is a column of every manifest"),
    ],
)
def test_groups_that_the_source_does_not_tell_are_refused(
    pictures: Path, tmp_path: Path, settings: params.Params, groups: tuple[str, ...], said: str
) -> None:
    own = params.Own(name="folder", path=str(pictures))
    with pytest.raises(Refusal, match=said):
        prepared_as(tmp_path, settings.prepare.model_copy(update={"source": own, "groups": groups}))
