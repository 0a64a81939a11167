"""Pictures come out right, splits do not leak, and what is stored is verified."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as some
from PIL import Image

from stages.core import params
from stages.core.datasets import pictures, sources, splits, storage
from stages.core.datasets.splits import Member
from stages.core.running.errors import Refusal

NAMES = tuple("abc")


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (4, 4), 90), (90, 90, 90)),
        (Image.fromarray(np.full((4, 4), 257 * 90, np.uint16)), (90, 90, 90)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4), (10, 20, 30)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("LA", (4, 4), (50, 255)), (50, 50, 50)),
    ],
    ids=["grey", "16 bit", "transparent", "palette", "one bit", "grey with alpha"],
)
def test_every_mode_becomes_rgb(tmp_path: Path, picture: Image.Image, expected: tuple[int, ...]) -> None:
    picture.save(tmp_path / "picture.png")
    assert pictures.read(tmp_path / "picture.png").getpixel((1, 1)) == expected


def test_a_picture_on_its_side_is_put_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "picture.png", exif=exif)
    upright = np.asarray(pictures.read(tmp_path / "picture.png"))
    assert upright.shape == (16, 8, 3)
    assert upright[:8].min() == 255
    assert upright[8:].max() == 0


@pytest.mark.parametrize("content", [b"", b"no picture at all", None], ids=["empty", "text", "cut short"])
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(Refusal, match=r"broken\.png cannot be read"):
        pictures.read(path)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Refusal, match="decompression bomb"):
        pictures.read(tmp_path / "bomb.png")


def folder_of(root: Path, counts: dict[str, int]) -> params.Folder:
    for name, count in counts.items():
        (root / name).mkdir()
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name / f"{number}.png")
    return params.Folder(name="folder", path=str(root))


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"a": 2, "b": 0}, "class 'b' is empty"), ({"a": 2}, "holds 1 class folders"), ({}, "holds 0 class folders")],
)
def test_a_folder_that_cannot_be_learnt_from_is_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        sources.folder(folder_of(tmp_path, counts))


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(Refusal, match="/nowhere is not a folder"):
        sources.folder(params.Folder(name="folder", path="/nowhere"))


def test_the_digits_are_the_ones_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    listing = sources.digits(params.Digits(name="digits"))
    grey = np.asarray(listing.items[7].open())[..., 0]
    assert len(listing.items) == 1797
    assert np.abs(grey / 255 * 16 - load_digits().images[7]).max() < 0.05  # pyright: ignore[reportAttributeAccessIssue]


def members_of(counts: dict[int, int], copies: int = 0) -> list[Member]:
    found = [Member(f"{label}-{number}", label) for label, count in counts.items() for number in range(count)]
    return found + [Member(f"0-{number}", 0) for number in range(copies)]


@given(
    counts=some.fixed_dictionaries({label: some.integers(5, 60) for label in range(3)}),
    copies=some.integers(0, 5),
    shares=some.sampled_from([(0.2, 0.2), (0.1, 0.3), (0.15, 0.15)]),
    seed=some.integers(0, 99),
)
@limits(max_examples=40, deadline=None)
def test_splits_are_disjoint_stratified_and_blind_to_order(
    counts: dict[int, int], copies: int, shares: tuple[float, float], seed: int
) -> None:
    members = members_of(counts, copies)
    places = splits.assign(members, NAMES, *shares, seed)
    by_content: dict[str, set[str]] = {}
    for member, place in zip(members, places, strict=True):
        by_content.setdefault(member.content, set()).add(place)
    assert all(len(found) == 1 for found in by_content.values())
    for label, count in (counts | {0: counts[0] + copies}).items():
        found = Counter(place for member, place in zip(members, places, strict=True) if member.label == label)
        for name, share in zip(("val", "test"), shares, strict=True):
            assert abs(found[name] - share * count) <= (2 if label == 0 else 1)
    order = list(range(len(members)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a test's order is no secret
    again = splits.assign([members[number] for number in order], NAMES, *shares, seed)
    assert again == [places[number] for number in order]


def test_another_seed_is_another_split() -> None:
    members = members_of({0: 30, 1: 30, 2: 30})
    assert splits.assign(members, NAMES, 0.2, 0.2, 0) != splits.assign(members, NAMES, 0.2, 0.2, 1)


def test_copies_with_conflicting_labels_are_excluded() -> None:
    members = [*members_of({0: 20, 1: 20, 2: 20}), Member("0-3", 1)]
    places = splits.assign(members, NAMES, 0.2, 0.2, 0)
    excluded = [member for member, place in zip(members, places, strict=True) if place == splits.EXCLUDED]
    assert excluded == [Member("0-3", 0), Member("0-3", 1)]


@pytest.mark.parametrize("counts", [{0: 20, 1: 20, 2: 2}, {0: 20, 1: 20, 2: 0}])
def test_too_few_pictures_of_a_class_are_refused(counts: dict[int, int]) -> None:
    with pytest.raises(Refusal, match="class 'c' has"):
        splits.assign(members_of(counts), NAMES, 0.2, 0.2, 0)


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(Refusal, match="leave nothing to train on"):
        splits.assign(members_of({0: 9, 1: 9, 2: 9}), NAMES, 0.5, 0.5, 0)


def test_calibration_comes_out_of_train_in_equal_shares() -> None:
    members = members_of({0: 40, 1: 80, 2: 20})
    places = splits.assign(members, NAMES, 0.2, 0.2, 0)
    chosen = splits.calibration(members, places, 42, 0)
    kept = [(member.label, place) for member, place, here in zip(members, places, chosen, strict=True) if here]
    assert Counter(kept) == {(0, "train"): 12, (1, "train"): 24, (2, "train"): 6}


def test_a_stored_split_comes_back(prepared: Path) -> None:
    split = storage.load(prepared / "train")
    assert split.images.shape == (72, 8, 8, 3)
    assert split.facts.classes == ("bars", "blobs", "checks")
    pixels = split.images.reshape(-1, 3) / 255
    assert np.allclose(split.facts.mean, pixels.mean(axis=0))
    assert np.allclose(split.facts.std, pixels.std(axis=0))


def test_normalisation_is_that_of_train_in_every_split(prepared: Path) -> None:
    facts = {name: storage.load(prepared / name).facts for name in ("train", "calibration", "val", "test")}
    assert len({(fact.mean, fact.std) for fact in facts.values()}) == 1


def test_a_flipped_bit_is_noticed(prepared: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "train"
    shutil.copytree(prepared / "train", folder)
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)
    with pytest.raises(Refusal, match=r"images\.npy is not what was prepared"):
        storage.load(folder)


def test_pictures_are_written_as_they_come(tmp_path: Path) -> None:
    facts = storage.Facts("small", NAMES, 4, (0.5,) * 3, (0.2,) * 3)

    def stream() -> Iterator[np.ndarray]:
        for number in range(5):
            yield np.full((4, 4, 3), number, np.uint8)

    storage.write(tmp_path / "split", stream(), np.arange(5), facts)
    assert storage.load(tmp_path / "split").images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
