"""Pictures of any kind come out right or say why not, and what is stored is verified."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.core.datasets import storage
from stages.core.predicting import pictures
from stages.core.predicting.pictures import Unreadable
from stages.core.running import files
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
    assert pictures.read(tmp_path / "picture.png").image.getpixel((1, 1)) == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK"])
def test_pieces_are_put_where_they_were(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 37, 4), np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., :2]).view(np.uint16)[..., 0])
    else:
        picture = Image.fromarray(pixels).convert("RGB").convert(mode)
    if mode == "P":
        picture.info["transparency"] = 3
    whole = pictures.to_rgb(picture)
    monkeypatch.setattr(pictures, "AT_ONCE", 5 * 37)
    assert pictures.to_rgb(picture).tobytes() == whole.tobytes()
    assert np.asarray(whole).std() > 20


PEAK = """
import sys
from pathlib import Path
from stages.core.predicting import pictures
def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
before = most()
for path in sys.argv[1:]:
    pictures.read(Path(path))
print(most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells how much memory was taken")
def test_a_picture_takes_little_more_memory_than_its_rgb(tmp_path: Path) -> None:
    side = 2500
    made = {
        "grey.png": Image.new("I;16", (side, side)),
        "numbers.tif": Image.new("I", (side, side)),
        "clear.png": Image.new("RGBA", (side, side)),
        "colours.bmp": Image.new("RGB", (side, side)),
    }
    for name, picture in made.items():
        picture.save(tmp_path / name)
    words = [sys.executable, "-c", PEAK, *(str(tmp_path / name) for name in made)]
    taken = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert taken < 11 * side * side


def test_a_picture_on_its_side_is_put_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "picture.png", exif=exif)
    upright = np.asarray(pictures.read(tmp_path / "picture.png").image)
    assert upright.shape == (16, 8, 3)
    assert upright[:8].min() == 255
    assert upright[8:].max() == 0


def cut_short(tmp_path: Path, kind: str) -> bytes:
    path = tmp_path / f"whole.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    return path.read_bytes()[:2000]


def animation(tmp_path: Path, kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / f"moving.{kind}", save_all=True, append_images=frames[1:])
    return (tmp_path / f"moving.{kind}").read_bytes()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: b"", "it is empty"),
        (lambda _: b"no picture at all", "no picture of a known kind"),
        (lambda folder: cut_short(folder, "png"), "truncated"),
        (lambda folder: cut_short(folder, "jpg"), "truncated"),
        (lambda folder: animation(folder, "gif"), "holds 3 pictures"),
        (lambda folder: animation(folder, "webp"), "holds 3 pictures"),
        (lambda folder: animation(folder, "tiff"), "holds 3 pictures"),
    ],
    ids=["empty", "text", "png cut short", "jpeg cut short", "gif", "webp", "tiff"],
)
def test_what_is_no_picture_says_why(tmp_path: Path, make: Callable[[Path], bytes], reason: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(make(tmp_path))
    with pytest.raises(Unreadable, match=reason):
        pictures.read(path)


def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(Unreadable, match="400 x 400 pixels: a decompression bomb"):
        pictures.read(tmp_path / "bomb.png")


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").mkdir()
    with pytest.raises(Unreadable, match="Is a directory"):
        pictures.read(tmp_path / "picture.jpg")


def test_the_colours_of_print_become_those_of_a_screen(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    red, green, blue = np.asarray(pictures.read(tmp_path / "print.jpg").image)[4, 4]
    assert red > 240
    assert max(green, blue) < 16


@pytest.mark.parametrize(
    ("fit", "left", "corner"),
    [("crop", (0, 0, 255), (0, 0, 255)), ("pad", (255, 0, 0), (0, 0, 0)), ("stretch", (255, 0, 0), (255, 0, 0))],
)
def test_a_fit_does_what_its_name_says(fit: str, left: tuple[int, ...], corner: tuple[int, ...]) -> None:
    """Of a wide picture with red ends and a blue middle."""
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :, 0] = 255
    wide[:, 16:48] = (0, 0, 255)
    fitted = np.asarray(pictures.FITS[fit](Image.fromarray(wide), 32))
    assert fitted.shape == (32, 32, 3)
    assert tuple(fitted[16, 0]) == left
    assert tuple(fitted[0, 0]) == corner


def test_the_digest_is_that_of_the_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (6, 9, 3), np.uint8)
    for ending in ("png", "bmp", "tiff"):
        Image.fromarray(pixels).save(tmp_path / f"a.{ending}")
    found = {pictures.digest(pictures.read(path).image) for path in tmp_path.iterdir()}
    assert len(found) == 1
    assert found != {pictures.digest(Image.fromarray(pixels.reshape(9, 6, 3)))}


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
    folder = tmp_path / "train"
    shutil.copytree(prepared / "train", folder)
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)
    with pytest.raises(Refusal, match=r"images\.npy is not what was prepared"):
        storage.load(folder)


def test_a_split_of_an_older_version_is_refused(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shutil.copytree(prepared / "train", folder)
    (folder / "pictures.csv").unlink()
    facts = files.read_json(folder / "split.json")
    del facts["pictures_sha256"]
    files.write_json(folder / "split.json", facts)
    with pytest.raises(Refusal, match=r"older version, without pictures\.csv: `dvc repro prepare`"):
        storage.load(folder)


def test_pictures_are_written_as_they_come(tmp_path: Path) -> None:
    facts = storage.Facts("small", NAMES, 4, (0.5,) * 3, (0.2,) * 3, "crop")

    def stream() -> Iterator[np.ndarray]:
        for number in range(5):
            yield np.full((4, 4, 3), number, np.uint8)

    roll = storage.Roll(list("abcde"), list("vwxyz"), {"camera": ["A", "B", "A", "", "C, D"]})
    storage.write(tmp_path / "split", stream(), np.arange(5), facts, roll)
    split = storage.load(tmp_path / "split")
    assert split.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    found = split.roll()
    assert (list(found.names), list(found.contents)) == (roll.names, roll.contents)
    assert {column: list(values) for column, values in found.groups.items()} == roll.groups
