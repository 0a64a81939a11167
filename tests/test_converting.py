"""Makers, true and false; what is believed of them, and what stops a stage."""

import dataclasses
import json
import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from lightvision import targets
from stages import convert
from stages.core import params
from stages.core.converting import asking, environments, proving, table
from stages.core.converting.makers.protocol import Handed
from stages.core.converting.proving import Judging
from stages.core.converting.table import MAKERS, TARGETS, Maker, Target
from stages.core.datasets.storage import Facts
from stages.core.running import files, sources
from stages.core.running.errors import Refusal
from tests.fake_maker import KINDS

FACTS = Facts("any", ("a", "b", "c"), 4, (0.5,) * 3, (0.25,) * 3, "crop")
EXACT = {"min_agreement": 1.0, "max_accuracy_drop": 0.0}
LOOSE = {"min_agreement": 0.1, "max_accuracy_drop": 0.9}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of being wrong is a target, `toy_wrong`; its maker runs in this environment."""
    toy = Target("toy", "", ".toy", "pruned", "floating", table.float16)
    known = {f"toy_{kind.replace(' ', '_')}": dataclasses.replace(toy, kind=kind) for kind in KINDS}
    monkeypatch.setattr(proving, "TARGETS", known)
    monkeypatch.setitem(MAKERS, "toy", Maker("tests.fake_maker", (), environment=False))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def handed(tmp_path: Path) -> Handed:
    folder = tmp_path / "handed"
    folder.mkdir()
    (folder / "handed.json").write_text(json.dumps({"classes": FACTS.classes}))
    return Handed(folder)


@pytest.fixture
def judging(tmp_path: Path) -> Judging:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 4, 4, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    return Judging(
        tmp_path / "images.npy", generator.integers(0, 3, 40), {"pruned": images[:, 0, 0].astype(np.float32)}
    )


def limits(floating: dict[str, float], settings: params.Params) -> params.Convert:
    return settings.convert.model_copy(update={"floating": params.Tolerance.model_validate(floating)})


def test_a_row_is_what_can_be_counted_by_hand(
    handed: Handed, judging: Judging, settings: params.Params, tmp_path: Path
) -> None:
    file = proving.make("toy_wrong", handed, tmp_path)
    row = proving.prove("toy_wrong", file, judging, limits(LOOSE, settings))
    first = np.load(judging.images)[:, 0, 0].astype(np.float32)
    answered = np.where(first.max(axis=1, keepdims=True) < 128, -first, first)
    chosen, right = answered.argmax(axis=1), answered.argmax(axis=1) == judging.labels
    assert row["agreement"] == pytest.approx((chosen == first.argmax(axis=1)).mean())
    assert 0.5 < row["agreement"] < 1
    assert row["accuracy"] == pytest.approx(right.mean())
    assert row["accuracy_drop"] == pytest.approx((first.argmax(axis=1) == judging.labels).mean() - right.mean())
    assert row["drop_low"] <= row["accuracy_drop"] <= row["drop_high"]
    assert row["largest_difference"] == np.abs(first - answered).max()
    assert 0 < row["milliseconds_low"] <= row["milliseconds"] <= row["milliseconds_high"]
    assert row["bytes"] == file.stat().st_size + 100
    assert (row["file"], row["runtime"], row["types"]) == ("toy_wrong.toy", "Toy 1.0", {"float16": 4})
    file.with_suffix(".json").touch()
    card = proving.card("toy_wrong", file, FACTS, row, "digest")
    assert set(card["files"]) == {"toy_wrong.toy", "toy_wrong.bin"}
    assert card["files"]["toy_wrong.bin"] == {"bytes": 100, "sha256": files.digest(tmp_path / "toy_wrong.bin")}
    assert (card["classes"], card["image_size"], card["of"]) == (["a", "b", "c"], 4, "pruned")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("toy_honest", "", marks=pytest.mark.slow),
        ("toy_wrong", r"not the network it was made from: it agrees on \d\d\.\d\d% of val \(the gate: 100\.00%\)"),
        pytest.param("toy_not_a_number", "answers that are not finite", marks=pytest.mark.slow),
        pytest.param("toy_other_classes", r"answers \(40, 2\), its network \(40, 3\)", marks=pytest.mark.slow),
        pytest.param("toy_nothing", r"toy wrote no toy_nothing\.toy", marks=pytest.mark.slow),
        ("toy_breaks", "^toy cannot convert: ValueError: no such operator: Twist$"),
        ("toy_liar", "not what its name says: it is float32, not float16; its tensors: 4 of float32"),
    ],
)
def test_what_is_wrong_is_said(
    handed: Handed, judging: Judging, settings: params.Params, tmp_path: Path, name: str, message: str
) -> None:
    def prove() -> None:
        proving.prove(name, proving.make(name, handed, tmp_path), judging, limits(EXACT, settings))

    _refused(message, prove)


def _refused(message: str, check: Callable[[], Any]) -> None:
    if message:
        with pytest.raises(Refusal, match=message):
            check()
    else:
        check()


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        ("raise ValueError('Twist')", asking.Unable, "toy cannot convert: ValueError: Twist"),
        ("import errno; raise OSError(errno.ENOSPC, 'No space')", Refusal, r"toy cannot convert: OSError: .*No space"),
        ("import os; print('a warning', file=sys.stderr); os.kill(os.getpid(), 9)", Refusal, "^toy .*: SIGKILL ended"),
    ],
)
def test_what_ends_a_converter_is_told_from_what_it_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, kind: type[Refusal], message: str
) -> None:
    """Only the latter is of the network."""
    code = f"""
        import sys
        from stages.core.converting.makers import protocol
        def convert(*_):
            {command}
        protocol.main(convert={{"any": convert}}, answer=convert, describe=convert)
    """
    (tmp_path / "ended.py").write_text(textwrap.dedent(code))
    monkeypatch.setitem(MAKERS, "toy", Maker("ended", (), environment=False))  # pyright: ignore[reportArgumentType]
    path = f"{sources.ROOT}{os.pathsep}{tmp_path}"
    monkeypatch.setattr(asking, "surroundings", lambda: os.environ | {"PYTHONPATH": path})
    with pytest.raises(Refusal, match=message) as told:
        asking.convert("toy", tmp_path, tmp_path / "file", "any")
    assert type(told.value) is kind


def test_what_is_told_of_a_file_names_no_folder_of_this_machine() -> None:
    why = "ValueError: '/tmp/tmp1/handed/network.onnx' (/root/x/y.bin) has and/or at 1/2, in /a/b"
    assert proving.without_folders(why) == "ValueError: 'network.onnx' (y.bin) has and/or at 1/2, in b"


def test_a_drop_alone_stops_a_file(settings: params.Params) -> None:
    """It agrees where nobody is right, and differs where the network was."""
    network = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    file = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    target = dataclasses.replace(TARGETS["onnx_float32"])
    asked = limits({"min_agreement": 0.5, "max_accuracy_drop": 0.2}, settings)
    with pytest.raises(Refusal, match=r"loses 25\.00% accuracy \(the gate: 20\.00%\).*convert\.floating"):
        proving._compared(target, network, file, np.array([0, 1, 2, 0]), asked)
    loose = asked.model_copy(update={"integer": params.Tolerance.model_validate(LOOSE)})
    integer = dataclasses.replace(target, gate="integer")
    assert proving._compared(integer, network, file, np.array([0, 1, 2, 0]), loose).agreement == 0.75


@pytest.mark.parametrize(
    ("rule", "found", "message"),
    [
        (table.float32, {"kind": "float32", "types": {"float32": 9, "uint8": 1}}, ""),
        (table.float32, {"kind": "float32", "types": {"float32": 9, "bfloat16": 1}}, "tensors of bfloat16"),
        (table.float16, {"kind": "float16", "types": {"float16": 6, "float32": 4, "int64": 90}}, ""),
        (table.float16, {"kind": "float16", "types": {"float16": 4, "float32": 6}}, "only 40% of its tensors"),
        (table.dynamic, {"kind": "dynamic-range", "types": {"float32": 9}}, "no tensor of int8"),
        (table.integer, {"kind": "partly integer", "types": {"int8": 1, "float32": 9}}, ""),
        (table.integer, {"kind": "float32", "types": {"int8": 1, "float32": 9}}, "float32, not full-integer"),
        (table.full_integer, {"kind": "full-integer", "types": {"int8": 9, "int32": 3, "float32": 1}}, ""),
        (table.full_integer, {"kind": "full-integer", "types": {"int8": 1, "float32": 3}}, "only 25%"),
        (
            table.delegated(table.float32),
            {"kind": "float32", "types": {"float32": 1}, "delegated": 0.5},
            "takes 0.5 of its operators, not 90%",
        ),
    ],
)
def test_a_name_is_a_promise(rule: table.Rule, found: dict[str, Any], message: str) -> None:
    assert message in rule(found)
    assert bool(rule(found)) == bool(message)


def test_each_target_has_a_maker_and_a_name_in_the_parameters(settings: params.Params) -> None:
    assert list(TARGETS) == list(get_args(params.TargetName))
    assert {target.maker for target in TARGETS.values()} <= MAKERS.keys()
    own = {name for name, maker in MAKERS.items() if not maker.environment}
    assert {TARGETS[name].maker for name in settings.convert.targets} <= own
    assert Path(*MAKERS["onnx_runtime"].module.split(".")).with_suffix(".py") in sources.of("stages.convert")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("all", ""),
        ([], ""),
        (["ort_int8", "ort_int8"], "each once"),
        (["tflite"], "Input should be 'onnx_float32'"),
        ("ort_int8", "Input should be a valid tuple"),
    ],
)
def test_targets_are_known_and_each_once(settings: params.Params, asked: Any, message: str) -> None:
    def check() -> None:
        found = params.Convert.model_validate(settings.convert.model_dump() | {"targets": asked})
        assert found.targets == (tuple(TARGETS) if asked == "all" else tuple(asked))

    if message:
        with pytest.raises(ValueError, match=message):
            check()
    else:
        check()


def test_a_card_says_who_answers(
    handed: Handed, judging: Judging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # of this process's Python, and no other's
    file = proving.make("toy_honest", handed, tmp_path)
    with pytest.raises(Refusal, match=r"toy_honest\.toy has no card toy_honest\.json beside it"):
        asking.logits(file, np.load(judging.images))
    files.write_json(tmp_path / "toy_honest.json", {"maker": "toy"})
    answered = asking.logits(file, np.load(judging.images)[:3])
    assert answered.dtype == np.float32
    assert np.array_equal(answered, judging.answers["pruned"][:3])


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The lock of a converter `toy` that needs nothing, and a home of converters of its own; no network."""
    (tmp_path / "locks").mkdir()
    lock = tmp_path / "locks" / "toy.lock"
    lock.write_text("")
    monkeypatch.setattr(environments, "LOCKS", lock.parent)
    monkeypatch.setenv("LIGHTVISION_CONVERTERS", str(tmp_path / "converters"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return lock


def test_an_environment_is_whole_or_not_there(locked: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = environments.folder("toy")
    half = folder.with_name(f"{folder.name}.xyz.partial")
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    assert environments.python("toy") is None
    python = environments.build("toy")
    assert python == environments.python("toy")
    assert not half.exists()
    found = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == folder
    assert environments.bytes_on_disk("toy") > 0
    assert folder.stat().st_mode & 0o777 == 0o755, "others may use what one has built"
    (folder.parent / f"{folder.name}.lock").unlink()
    (folder.parent / f"{folder.name}.lock").mkdir()  # as where nobody may write
    assert environments.build("toy") == python
    (folder.parent / f"{folder.name}.lock").rmdir()
    assert capfd.readouterr().out.count("its converter is built") == 1
    python.unlink()
    python.symlink_to("/gone")
    assert environments.build("toy").exists()
    locked.write_text("# another lock\n")
    assert environments.python("toy") is None


def test_what_cannot_be_built_leaves_nothing(locked: Path) -> None:
    locked.write_text("there-is-no-such-package==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(Refusal, match="there-is-no-such-package was not found in the cache"):
        environments.build("toy")
    assert environments.python("toy") is None
    assert [path.suffix for path in environments.home().iterdir()] == [".lock"]


def test_a_long_reason_keeps_its_end(locked: Path) -> None:
    """uv says last that a disk is full."""
    locked.write_text(f"there-is-no-such-package-{'x' * 900}==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(
        Refusal, match=r"cannot be built: .* \.\.\. .*Packages were unavailable because the network was"
    ) as told:
        environments.build("toy")
    assert len(str(told.value)) < 500


def test_an_environment_that_lacks_a_package_is_told(
    locked: Path, handed: Handed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MAKERS, "toy", Maker("tests.fake_maker", (), environment=True))  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refusal, match="the converter toy is not here: `lightvision targets --build toy` builds it"):
        proving.make("toy_honest", handed, tmp_path)
    asking.prepare("toy")
    with pytest.raises(Refusal, match=r"No module named 'numpy'; remove .*toy-.* anew"):
        proving.make("toy_honest", handed, tmp_path)


@pytest.mark.parametrize(("absent", "quantization"), [("skip", "integer"), ("skip", "float16"), ("fail", "integer")])
def test_what_cannot_be_made_is_named(
    settings: params.Params,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: str,
    quantization: str,
) -> None:
    def prepare(maker: str) -> None:
        if maker == "litert":
            raise Refusal("no route to host")

    half = params.Half(name="float16")
    method = settings.quantize.method if quantization == "integer" else half
    monkeypatch.setattr(asking, "prepare", prepare)
    monkeypatch.setattr(convert.artifact, "read_card", lambda _: SimpleNamespace(quantization=method))
    asked = settings.convert.model_copy(update={"targets": ("ort_int8", "litert_int8"), "absent": absent})
    if absent == "fail":
        with pytest.raises(Refusal, match=r"litert_int8: no converter: .*; or set convert\.absent to skip"):
            convert.absent(asked, Path("quantized"))
        return
    found = convert.absent(asked, Path("quantized"))
    assert set(found) == {"litert_int8"} | ({"ort_int8"} if quantization == "float16" else set())
    assert "`lightvision targets --build litert` builds it" in found["litert_int8"]
    told = capsys.readouterr().out
    assert all(f"{name} is left out: {why}" in told for name, why in found.items())
    assert "no route to host" in told


def test_targets_are_listed_and_an_unknown_converter_is_refused(
    locked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in targets.OWN:
        (locked.parent / f"{name}.lock").touch()
    monkeypatch.setenv("COLUMNS", "200")
    assert targets.run([]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in TARGETS)
    assert told.count("not built: --build openvino") == 3
    with pytest.raises(Refusal, match="no converter is called onnx_runtime"):
        targets.run(["onnx_runtime"])
    assert targets.run([targets.OWN[0]]) == 0
    assert "built, " in capsys.readouterr().out
