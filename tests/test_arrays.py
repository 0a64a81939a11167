"""CIFAR's batches and .npz files become a listing, or a named reason; no pickle runs anything."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.core.datasets import arrays, sources
from stages.core.running.errors import Refusal
from tests.listings import LABELS, PIXELS, csv_of, folders, packed, read

# --------------------------------------------------------------------------------------------------- CIFAR


def batch(images: np.ndarray, labels: list[Any]) -> bytes:
    return pickle.dumps({b"data": images, b"labels": labels})


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_python(root: Path, protocol: int = 2) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        batch = {b"data": planes(PIXELS[n]), b"labels": LABELS[n].tolist(), b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in sources.CIFAR10]}))
    return folder


def cifar_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = np.concatenate([LABELS[n].astype(np.uint8)[:, None], planes(PIXELS[n])], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(sources.CIFAR10) + "\n\n")
    return folder


def cifar_folders(root: Path) -> Path:
    for n in range(6):
        for m in range(4):
            path = root / "cifar" / ("test" if n == 5 else "train") / sources.CIFAR10[LABELS[n, m]] / f"{n}{m}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[n, m]).save(path)
    return root / "cifar"


def cifar_npz(root: Path) -> Path:
    learning = {"x_train": PIXELS[:5].reshape(-1, 32, 32, 3), "y_train": LABELS[:5].reshape(-1, 1)}
    np.savez_compressed(root / "cifar.npz", **learning, x_test=PIXELS[5], y_test=LABELS[5])  # pyright: ignore[reportArgumentType]
    return root / "cifar.npz"


@pytest.mark.parametrize("make", [cifar_python, cifar_binary, cifar_folders, cifar_npz])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_in_every_form_is_the_same(tmp_path: Path, make: Any, packed: bool) -> None:
    path = make(tmp_path)
    if packed and path.is_dir():
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "gztar", path.parent, path.name))
    found = read("cifar10", path, tmp_path / "home")
    assert found.classes == sources.CIFAR10
    told = {(item.open().image.tobytes(), item.label, item.given) for item in found.items}
    assert told == {
        (PIXELS[n, m].tobytes(), LABELS[n, m], "test" if n == 5 else "train") for n in range(6) for m in range(4)
    }


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    for name in ("train", "test"):
        batch = {b"data": planes(PIXELS[0]), b"fine_labels": [0, 99, 42, 7], b"coarse_labels": [0, 1, 2, 3]}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
        rows = [[coarse, fine] for coarse, fine in zip(range(4), (0, 99, 42, 7), strict=True)]
        (tmp_path / "bin").mkdir(exist_ok=True)
        content = np.concatenate([np.array(rows, np.uint8), planes(PIXELS[0])], axis=1)
        (tmp_path / "bin" / f"{name}.bin").write_bytes(content.tobytes())
    names = [f"class-{n}" for n in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in names]}))
    (tmp_path / "bin" / "fine_label_names.txt").write_text("\n".join(names))
    for folder in (tmp_path, tmp_path / "bin"):
        found = read("cifar100", folder)
        assert found.classes == tuple(names)
        assert [item.label for item in found.items] == [0, 99, 42, 7] * 2
        assert found.items[1].open().image.tobytes() == PIXELS[0, 1].tobytes()


def test_cifar100_may_lie_below_its_superclasses(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folders(tmp_path / split, [f"super-{n % 20:02}/class-{n:02}" for n in range(100)], count=1)
    found = read("cifar100", tmp_path)
    assert found.classes == tuple(f"class-{n:02}" for n in range(100))
    assert {found.classes[item.label] for item in found.items if "/class-42/" in item.name} == {"class-42"}


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/owned",)


def test_a_pickle_that_would_run_a_program_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar_python(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it ran"))
    with pytest.raises(Refusal, match=r"asks for posix\.system, which no array needs"):
        read("cifar10", folder)


@pytest.mark.parametrize(
    ("make", "name", "damage", "message"),
    [
        (cifar_binary, "data_batch_2.bin", lambda content: content[:-1], "is cut short"),
        (cifar_python, "data_batch_2", lambda content: content[:-50], "is no batch of CIFAR"),
        (cifar_binary, "data_batch_2.bin", lambda content: b"\x0a" + content[1:], "picture 0 has the label 10"),
        (cifar_binary, "data_batch_2.bin", lambda _: b"", "is cut short"),
        (cifar_python, "data_batch_2", lambda _: pickle.dumps({b"other": 1}), "is no batch of CIFAR"),
        (cifar_python, "data_batch_2", lambda _: pickle.dumps([1]), "is no batch of CIFAR"),
        (cifar_python, "data_batch_2", lambda _: batch(planes(PIXELS[0]) / 255, [0, 1, 2, 3]), "is no batch of CIFAR"),
        (cifar_python, "data_batch_2", lambda _: batch(planes(PIXELS[0]), [0, 1, 2]), "is no batch of CIFAR: 3 labels"),
        (cifar_python, "data_batch_2", lambda _: batch(planes(PIXELS[0]), list("abcd")), "is no batch of CIFAR"),
        (
            cifar_python,
            "data_batch_2",
            lambda _: batch(planes(PIXELS[0]), [0, 1, 2, -1]),
            "picture 3 has the label -1",
        ),
        (cifar_python, "batches.meta", lambda _: pickle.dumps({b"other": 1}), "does not name the classes"),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, make: Any, name: str, damage: Any, message: str) -> None:
    path = make(tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Refusal, match=rf"{name}:? {message}"):
        read("cifar10", path.parent)


@pytest.mark.parametrize(("name", "message"), [("data_batch_4", "data_batch_4"), ("test_batch", "its test batch")])
def test_a_missing_batch_is_named(tmp_path: Path, name: str, message: str) -> None:
    folder = cifar_python(tmp_path)
    (folder / name).unlink()
    with pytest.raises(Refusal, match=f"lacks {message}"):
        read("cifar10", folder)


# ----------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize(
    "content",
    [
        {"images": PIXELS[0], "labels": np.array([0, 1, 2, 1])},
        {"images": PIXELS[0].transpose(0, 3, 1, 2), "labels": np.array([[0], [1], [2], [1]])},
        {"train_images": PIXELS[0], "train_labels": np.array([0, 1, 2, 1], np.uint8)},
    ],
    ids=["plain", "channels first", "MedMNIST"],
)
def test_an_npz(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **content, class_names=np.array(["x", "y", "z"]))  # pyright: ignore[reportArgumentType]
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    assert found.classes == ("x", "y", "z")
    assert [item.label for item in found.items] == [0, 1, 2, 1]
    assert found.items[2].open().image.tobytes() == PIXELS[0, 2].tobytes()


def test_a_grey_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0, ..., 0], labels=np.array([0, 1, 2, 1]))
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    assert np.array_equal(np.asarray(found.items[3].open().image)[..., 2], PIXELS[0, 3, ..., 0])


def test_an_archive_may_hold_an_npz(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, make in (("cifar10", cifar_npz), ("npz", cifar_npz)):
        make(tmp_path / "in")
        path = packed(tmp_path, tmp_path / "in")
        assert len(read(name, path, tmp_path / "home").items) == 24
    assert sources.guess(path, tmp_path / "home").name == "npz"


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.array([7, 5, 7, 3_000_000_000]))
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    assert found.classes == ("5", "7", "3000000000")
    assert [item.label for item in found.items] == [1, 0, 1, 2]


def test_classes_may_be_named_in_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.arange(4) % 2, classes=np.array([b"x", b"y"]))
    assert read("npz", tmp_path / "a.npz", tmp_path / "home").classes == ("x", "y")


def test_items_can_be_sent_to_another_process(tmp_path: Path) -> None:
    folders(tmp_path / "folder", ["a", "b"])
    for name, path in (
        ("folder", tmp_path / "folder"),
        ("csv", csv_of(tmp_path / "csv", "path,label\none.png,b\ntwo.png,a\n")),
        ("npz", cifar_npz(tmp_path)),
        ("cifar10", cifar_binary(tmp_path)),
        ("cifar10", cifar_python(tmp_path)),
        ("digits", None),
    ):
        one = read(name, path, tmp_path / "home").items[1]
        sent = pickle.dumps(one)
        assert len(sent) < 1000
        assert pickle.loads(sent).open().image.tobytes() == one.open().image.tobytes()  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": PIXELS[0]}, "images without its labels"),
        ({"other": PIXELS[0]}, "holds other; images and labels"),
        ({"images": PIXELS[0], "labels": np.arange(3)}, "4 pictures and labels 3 labels"),
        ({"images": PIXELS[0] / 255, "labels": np.arange(4)}, "images is float64; pictures are uint8"),
        ({"images": PIXELS[0].reshape(4, -1), "labels": np.arange(4)}, r"shape \(4, 3072\)"),
        ({"images": PIXELS[0], "labels": np.arange(4) / 2}, "one whole number"),
        ({"images": PIXELS[0], "labels": np.arange(4) - 1}, "one whole number"),
        ({"images": PIXELS[0], "labels": np.arange(4), "classes": np.array(["x"])}, "label 3 has no name among the 1"),
        ({"images": PIXELS[0], "labels": np.zeros(4, int)}, "pictures of 1 classes"),
        ({"images": PIXELS[0][:, :0], "labels": np.arange(4)}, "its pictures have no pixels"),
        ({"images": PIXELS[0], "labels": np.arange(4) % 2, "classes": np.array(["x", "x"])}, "classes holds 'x' twice"),
        ({"images": PIXELS[0], "labels": np.arange(4) % 2, "classes": np.array([1, 2])}, "each as text"),
        ({"images": np.array([None] * 4), "labels": np.arange(4)}, "images is no plain array"),
    ],
)
def test_an_npz_that_holds_something_else_says_what(
    tmp_path: Path, content: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **content)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match=message):
        read("npz", tmp_path / "a.npz", tmp_path / "home")


def test_rows_of_an_npz_are_mapped(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[0], labels=np.array([0, 1, 2, 1]))
    found = read("npz", tmp_path / "a.npz", tmp_path / "home")
    found.items[0].open()
    file = next((tmp_path / "home").rglob("images.npy"))
    assert isinstance(arrays._mapped(file), np.memmap)
