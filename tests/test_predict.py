"""What a file says of pictures is what the report says of it, to the number; what is no such file is refused."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy import special

from lightvision.predict import load
from stages.core import batches, evaluation, machine, params
from stages.core.converting import asking
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.networks.artifact import Model
from stages.core.predicting import finding
from stages.core.predicting.errors import Unusable
from stages.core.predicting.pictures import Unreadable
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.shipping import running, writing
from tests import integer_networks, made_files
from tests.integer_networks import FACTS
from tests.lessons import SMALL
from tests.made_files import expected

COLOURS = ((200, 10, 30), (5, 90, 60), (0, 0, 255), (128, 128, 128))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return made_files.write(tmp_path / "made.onnx")


@pytest.fixture
def shown(tmp_path: Path) -> list[Path]:
    sizes = ((20, 12), (8, 8), (1, 300), (300, 1))
    return [
        made_files.picture(tmp_path / f"{number}.png", *given)
        for number, given in enumerate(zip(COLOURS, sizes, strict=True))
    ]


def test_paths_pictures_and_arrays_are_answered_alike(made: Path, shown: list[Path]) -> None:
    model, wanted = load(made), expected(*COLOURS)
    arrays = [np.asarray(Image.open(path)) for path in shown]
    for asked in (shown, list(map(str, shown)), [Image.open(path) for path in shown], arrays):
        answers = model.classify(asked, top=2)
        np.testing.assert_allclose([answer.probabilities for answer in answers], wanted, rtol=1e-6)
        assert [answer.name for answer in answers] == ["red", "green", "blue", "red"]
        assert [answer.ranked[1][0] for answer in answers[:3]] == ["blue", "blue", "red"]
        assert answers[1].ranked[1][1] == pytest.approx(wanted[1, 2], rel=1e-6)


def test_one_alone_is_one_answer(made: Path, shown: list[Path]) -> None:
    model = load(made)
    for one in (shown[1], str(shown[1]), Image.open(shown[1]), np.asarray(Image.open(shown[1]))):
        assert [answer.name for answer in model.classify(one)] == ["green"]
    assert model.classify([]) == []


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_order_is_kept_around_what_cannot_be_read(made: Path, shown: list[Path], tmp_path: Path, batch: int) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    asked = [tmp_path / "empty.png", *shown[:2], tmp_path / "absent.png", *shown[2:]] * 3
    answers = list(load(made).answers(asked, batch=batch))
    assert [answer.asked for answer in answers] == asked
    assert [answer.problem for answer in answers[:4]] == ["it is empty", "", "", "the file is not there"]
    found = [answer.probabilities for answer in answers if not answer.problem]
    np.testing.assert_allclose(found, np.tile(expected(*COLOURS), (3, 1)), rtol=1e-6)


def test_what_is_asked_is_not_read_far_ahead(made: Path) -> None:
    taken = 0

    def many() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield np.zeros((8, 8, 3), np.uint8)

    answers = load(made).answers(many(), batch=4)
    for _ in range(100):
        next(answers)
    assert taken <= 100 + 3 * 4


def test_a_file_that_answers_by_the_batch_is_asked_about_one_picture_at_a_time(tmp_path: Path) -> None:
    pixels = np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in COLOURS])
    alone = [special.softmax(np.array(colour) / max(colour)) for colour in COLOURS]
    together = load(made_files.write(tmp_path / "unsaid.onnx", divisor="batch")).probabilities(pixels)
    assert not np.allclose(together, alone, rtol=1e-3)
    careful = load(made_files.write(tmp_path / "said.onnx", {"asked": "one by one"}, divisor="batch"))
    np.testing.assert_allclose(careful.probabilities(pixels), alone, rtol=1e-6)
    np.testing.assert_allclose([answer.probabilities for answer in careful.answers(pixels, batch=3)], alone, rtol=1e-6)


def test_large_logits_are_no_trouble_and_what_is_no_number_is_refused(tmp_path: Path) -> None:
    model = load(made_files.write(tmp_path / "made.onnx", divisor="batch"))
    with pytest.raises(Unusable, match="answers with what is no number"):
        model.classify(np.zeros((8, 8, 3), np.uint8))  # 0 / 0
    model._logits = lambda images: np.array([[1e30, -1e30, 1e30]], np.float32)
    assert model.probabilities(np.zeros((1, 8, 8, 3), np.uint8)).tolist() == [[0.5, 0, 0.5]]


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)],
    ids=["float", "grey", "channels first", "nothing"],
)
def test_other_arrays_are_refused(made: Path, array: np.ndarray) -> None:
    with pytest.raises(Unreadable, match=r"an array is uint8 RGB \[height, width, 3\]"):
        load(made).classify([array])


def test_what_cannot_be_read_is_named(made: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "drawing.jpg", "EPS")
    for path, reason in (("drawing.jpg", "EPS is a program"), ("gone.jpg", "is not there"), ("", "no file")):
        with pytest.raises(Unreadable, match=f"{path}.*{reason}"):
            load(made).classify(tmp_path / path)


# --------------------------------------------------------------------------------------------- what is no such file


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"schema": "3"}, "it is of schema 3, and this version reads 2 and older"),
        ({"schema": "new"}, "its metadata lacks what LightVision writes"),
        ({"classes": None}, r"its metadata lacks what LightVision writes.*'classes'"),
        ({"classes": "[red"}, "its metadata lacks what LightVision writes"),
        ({"classes": "[" * 100_000}, "its metadata lacks what LightVision writes"),
        ({"classes": '["a", "b"]'}, "it names 2 classes and gives 3 answers"),
        ({"classes": '["a", "b", "a"]'}, "two of its classes bear the same name"),
        ({"classes": "[1, 2, 3]"}, "its class names are no list of at least two names"),
        ({"image_size": "9"}, r"it does not take pictures as uint8 \[n, 9, 9, 3\]"),
        ({"image_size": "-8"}, "its pictures would be -8 pixels wide"),
        ({"fit": "squash"}, "made fit by 'squash'; known are crop, pad, stretch"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, facts: dict[str, str | None], words: str) -> None:
    path = made_files.write(tmp_path / "made.onnx", facts)
    with pytest.raises(Refusal, match=words) as refused:
        load(path)
    assert str(path) in str(refused.value)


def test_a_file_from_before_schemas_is_read(tmp_path: Path) -> None:
    assert load(made_files.write(tmp_path / "old.onnx", {"schema": None})).classes == made_files.CLASSES


def test_a_file_cut_short_is_refused(made: Path) -> None:
    whole = made.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        made.write_bytes(whole[:length])
        with pytest.raises(Refusal, match="does not load in ONNX Runtime"):
            load(made)


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "notes.txt").touch()
    for name, words in (("gone", "is not there"), ("pipe.onnx", "is no file"), ("notes.txt", "cannot be asked")):
        with pytest.raises(Refusal, match=words):
            load(tmp_path / name)


def test_of_a_folder_the_only_file_or_the_quantized_one(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shipped"
    folder.mkdir()
    with pytest.raises(Refusal, match="holds no file that could be asked"):
        load(folder)
    shutil.copy(made, folder / "a.onnx")
    assert load(folder).file == str(folder / "a.onnx")
    shutil.copy(made, folder / "b.onnx")
    with pytest.raises(Refusal, match=r"holds 2 files that could be asked, name one: a.onnx, b.onnx"):
        load(folder)
    shutil.copy(made, folder / "quantized.onnx")
    assert load(folder).file == str(folder / "quantized.onnx")


# ------------------------------------------------------------------------------------------------- files with a card


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    file = tmp_path / "litert_int8.tflite"
    file.write_bytes(b"numbers")
    stated = {"files": {file.name: {"bytes": 7, "sha256": files.digest(file)}}}
    facts = {"target": "litert_int8", "maker": "litert", "classes": ["a", "b"], "image_size": 8, "fit": "crop"}
    file.with_suffix(".json").write_text(json.dumps(facts | stated))
    return file


def test_a_converted_file_is_asked_through_its_maker(
    converted: Path, shown: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    monkeypatch.setattr(asking, "logits", lambda file, images: logits[: len(images)] if file == converted else None)
    found = [answer.probabilities for answer in load(converted).classify(shown)]
    np.testing.assert_allclose(found, special.softmax(logits.astype(np.float64), axis=1), rtol=1e-6)
    monkeypatch.setattr(asking, "logits", lambda file, images: logits[:, :1])
    with pytest.raises(Unusable, match=r"names 2 classes.*\[4, 1\]"):
        load(converted).classify(shown)


def test_a_file_that_is_not_its_cards_is_refused(converted: Path, made: Path) -> None:
    converted.write_bytes(b"Numbers")
    with pytest.raises(Refusal, match=r"litert_int8.tflite is not the file that litert_int8.json was written with"):
        load(converted)
    stated = {made.name: {"bytes": 1, "sha256": files.digest(converted)}}
    made.with_suffix(".json").write_text(json.dumps({"files": stated}))
    with pytest.raises(Refusal, match=r"made.onnx is not the file that made.json was written with"):
        load(made)
    converted.with_suffix(".json").unlink()
    with pytest.raises(Refusal, match=r"has no card litert_int8.json beside it"):
        load(converted)


# ----------------------------------------------------------------------------------------------- what stages make


@pytest.fixture(scope="module")
def network() -> Model:
    return Model(integer_networks.dense(SMALL), artifact.Card(SMALL, FACTS))


def test_a_shipped_file_answers_as_kept_for_the_report(network: Model, tmp_path: Path) -> None:
    """As benchmark keeps them, of pictures saved without loss; and so does the same file in ORT's own format."""
    images, file = integer_networks.pictures(9)[0], tmp_path / "shipped.onnx"
    writing.write(network, file, 17, {})
    kept = special.softmax(running.logits(file, images), axis=1)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "shipped.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(file, options)
    for one in (file, tmp_path / "shipped.ort"):
        model = load(one)
        assert model.classes == FACTS.classes
        found = [answer.probabilities for answer in model.classify(sorted(tmp_path.glob("*.png")))]
        np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-7)


def test_a_networks_folder_answers_as_the_evaluator(network: Model, settings: params.Params, tmp_path: Path) -> None:
    artifact.save_float(tmp_path / "pruned", network.network, SMALL, FACTS)
    stored = integer_networks.pictures(9)[0]
    here = machine.choose(settings.compute, 0)
    judged = batches.on_device(storage.Split(FACTS, stored, np.zeros(9, np.int64)), here)
    answers = evaluation.logits(network.network, judged).numpy()
    torch.use_deterministic_algorithms(mode=False)
    np.testing.assert_allclose(load(tmp_path / "pruned").probabilities(stored), special.softmax(answers, axis=1), 1e-5)
    artifact.leave_out(tmp_path / "control", "distill.control is off")
    with pytest.raises(Refusal, match=r"control holds no network: distill.control is off"):
        load(tmp_path / "control")


def test_a_file_of_dynamic_ranges_says_so(network: Model, tmp_path: Path) -> None:
    dynamic = params.DynamicInt8(name="dynamic_int8", scales="channel")
    card = artifact.Card(SMALL, FACTS, quantization=dynamic)
    for one, file in ((Model(network.network, card), "dynamic.onnx"), (network, "float.onnx")):
        writing.write(one, tmp_path / file, 17, {})
    assert load(tmp_path / "dynamic.onnx").description.one_by_one
    assert not load(tmp_path / "float.onnx").description.one_by_one


# --------------------------------------------------------------------------------------------------- what is meant


def test_folders_are_searched_in_order_and_no_loop_is_followed(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/deep/1.JPG", "top.webp", "a/notes.txt", ".hidden/3.png", "a/.4.png"):
        made_files.picture(tmp_path / "given" / name, (0, 0, 0)) if name.endswith("png") else None
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).touch()
    (tmp_path / "given" / "a" / "loop").symlink_to(tmp_path / "given")
    found = finding.find([str(tmp_path / "given"), "named.txt"])
    names = [Path(one).relative_to(tmp_path / "given").as_posix() for one in found.pictures[:-1]]
    assert names == ["top.webp", "a/deep/1.JPG", "b/2.png"]
    assert found.pictures[-1] == "named.txt"
    assert [Path(one).name for one in found.others] == ["notes.txt"]
    assert not found.closed
