"""`lightvision predict`, as a person types it: on a terminal, in a pipe, into files, and where little is installed."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from lightvision import __main__ as command
from lightvision.answered import Table
from stages.core.predicting.classifying import Answer
from stages.core.predicting.wording import shown
from stages.core.running.sources import ROOT
from tests import made_files
from tests.made_files import expected

GREEN = (5, 90, 60)
HOSTILE = {  # names, and how a terminal is told them
    "new\nline.png": "new\\nline.png",
    "new\rline.png": "new\\rline.png",
    "\x1b[31mred.png": "\\x1b[31mred.png",
    "csi\x9b31m.png": "csi\\x9b31m.png",
    "turned\u202egpj.png": "turned\\u202egpj.png",
    os.fsdecode(b"bytes\xff.png"): "bytes\\xff.png",
    "=1+1.png": "=1+1.png",
    '"a", b.png': '"a", b.png',
    "-dash.png": "-dash.png",
    "日本.png": "日本.png",
}
ONLY = """
import sys
allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "PIL", "lightvision", "stages", "__main__"}
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Refusing())
for name in [name for name in sys.modules if name.split(".")[0] not in allowed]:
    del sys.modules[name]
sys.argv = ["lightvision", *sys.argv[1:]]
from lightvision.__main__ import main
try:
    main()
finally:
    print(*sorted(name for name in sys.modules if name.startswith(("lightvision.", "stages."))), file=sys.stderr)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a file, and a folder of three pictures, one of which is none."""
    monkeypatch.chdir(tmp_path)
    made_files.write(tmp_path / "made.onnx")
    made_files.picture(tmp_path / "given" / "a.png", (200, 10, 30))
    (tmp_path / "given" / "b.png").write_bytes(b"")
    made_files.picture(tmp_path / "given" / "c" / "d.png", GREEN)
    (tmp_path / "given" / "notes.txt").touch()
    return tmp_path


def lightvision(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> object:
    monkeypatch.setattr(sys, "argv", ["lightvision", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


def test_a_table(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightvision(monkeypatch, "predict", "made.onnx", "given", "--top", "2") == 1
    told = capsys.readouterr()
    first, second = expected((200, 10, 30), GREEN)
    assert told.out.splitlines() == [
        f"given/a.png    red    {first[0]:6.1%}  blue {first[2]:.1%}",
        f"given/c/d.png  green  {second[1]:6.1%}  blue {second[2]:.1%}",
    ]
    assert told.err.splitlines() == [
        "lightvision: left out for their endings (1): given/notes.txt",
        "lightvision: given/b.png: it is empty",
        "lightvision: 1 of 3 pictures could not be read",
    ]
    assert lightvision(monkeypatch, "predict", "made.onnx", "given/a.png") == 0


def test_lines_of_json(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightvision(monkeypatch, "predict", "made.onnx", "given", "--json") == 1
    first, broken, second = map(json.loads, capsys.readouterr().out.splitlines())
    chances = expected((200, 10, 30), GREEN)
    assert (first["path"], first["class"], second["path"], second["class"]) == (
        *("given/a.png", "red"),
        *("given/c/d.png", "green"),
    )
    assert [one["probability"] for one in first["top"]] == pytest.approx(sorted(chances[0])[::-1], rel=1e-6)
    assert second["probability"] == pytest.approx(chances[1, 1], rel=1e-6)
    assert broken == {"path": "given/b.png", "error": "it is empty"}


def test_a_csv_file(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightvision(monkeypatch, "predict", "made.onnx", "given", "--csv", "answers.csv") == 1
    with open("answers.csv", newline="", encoding="utf-8") as stream:
        header, first, broken, second = csv.reader(stream)
    assert header == ["path", "class", "probability", "error", "p(red)", "p(green)", "p(blue)"]
    assert broken == ["given/b.png", "", "", "it is empty", "", "", ""]
    for row, chances in zip((first, second), expected((200, 10, 30), GREEN), strict=True):
        assert [float(cell) for cell in (row[2], *row[4:])] == pytest.approx([max(chances), *chances], rel=1e-6)
    assert capsys.readouterr().out == "answers.csv: 2 of 3 pictures are answered\n"


def test_hostile_names(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in HOSTILE:
        shutil.copy("given/a.png", name)
    names = list(HOSTILE)
    for name, spelled in HOSTILE.items():
        assert lightvision(monkeypatch, "predict", "made.onnx", "--", name) == 0
        assert capsys.readouterr().out.startswith(f"{spelled}  red ")
    assert lightvision(monkeypatch, "predict", "made.onnx", "--json", "--csv", "all.csv", "--", *names) == 0
    written = [os.fsencode(name).decode(errors="backslashreplace") for name in names]
    lines = capsys.readouterr().out
    assert lines.isascii()
    assert [json.loads(line)["path"] for line in lines.splitlines()] == written
    with open("all.csv", newline="", encoding="utf-8") as stream:
        cells = [row["path"] for row in csv.DictReader(stream)]
    assert cells == [f"./{name}" if name[0] in "=-" else name for name in written]


def test_wide_characters_keep_columns_straight(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("日本.png", "abcd.png"):
        shutil.copy("given/a.png", name)
    lightvision(monkeypatch, "predict", "made.onnx", "日本.png", "abcd.png")
    wide, narrow = capsys.readouterr().out.splitlines()
    assert wide.index("red") + 2 == narrow.index("red")


def test_a_terminal_that_knows_only_ascii_is_told_in_ascii() -> None:
    kept = io.BytesIO()
    stream = io.TextIOWrapper(kept, encoding="ascii")
    Table(stream, ["日.png"], ["é"]).tell(Answer("日.png", (("é", 1.0),)))
    stream.flush()
    assert kept.getvalue().split() == [b"\\u65e5.png", b"\\xe9", b"100.0%"]


def test_a_refusal_does_not_move_the_cursor(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lightvision(monkeypatch, "predict", "\x1b[2J.onnx", "given") == "lightvision: \\x1b[2J.onnx is not there"
    assert shown("plain é 日本") == "plain é 日本"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (("made.onnx", "given/c/../notes"), 1),
        (("made.onnx", "empty"), "lightvision: there is no picture among what was named"),
        (("made.onnx", "given/a.png", "--csv", "given"), "lightvision: --csv given: there is something there"),
        (("made.onnx", "given/a.png", "--csv", "/dev/null"), "lightvision: --csv /dev/null: there is something there"),
        (("made.onnx", "given/a.png", "--csv", "gone/a.csv"), "lightvision: --csv gone/a.csv: there is no folder"),
        (("made.onnx", "given/a.png", "--top", "0"), 2),
        (("made.onnx", "given/a.png", "--batch", "-1"), 2),
        (("made.onnx",), 2),
    ],
)
def test_wrong_questions(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], refused: int | str
) -> None:
    (place / "empty").mkdir()
    said = lightvision(monkeypatch, "predict", *words)
    assert str(said).startswith(str(refused))


def test_a_table_is_whole_or_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A black picture's answer is 0 / 0, after others were answered."""
    made_files.write(place / "made.onnx", divisor="batch")
    made_files.picture(place / "given" / "z" / "black.png", (0, 0, 0))
    Path("answers.csv").write_text("before")
    there = sorted(place.iterdir())
    said = lightvision(monkeypatch, "predict", "made.onnx", "given", "--csv", "answers.csv", "--batch", "1")
    assert said == "lightvision: made.onnx answers with what is no number"
    assert Path("answers.csv").read_text() == "before"
    assert sorted(place.iterdir()) == there


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_paths_from_standard_input(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    names = ["given/a.png", "given/c/d.png"] + (["new\nline.png"] if end == "\0" else [])
    shutil.copy("given/a.png", "new\nline.png")
    given = "".join(name + end for name in names).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert lightvision(monkeypatch, "predict", "made.onnx", "--json", "-") == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == names


# --------------------------------------------------------------------------------------- where little is installed


def test_nothing_is_imported_but_three_packages(place: Path) -> None:
    """And nothing of the project that is not of this command."""
    words = [sys.executable, "-c", ONLY, "predict", "made.onnx", "given/a.png"]
    told = subprocess.run(words, capture_output=True, text=True, cwd=place, env=os.environ | path(), check=False)
    assert told.stdout.startswith("given/a.png  red "), told.stderr
    imported = {one for one in told.stderr.split() if one.startswith("stages.core.") and one.count(".") > 2}
    assert {one for one in imported if not one.startswith("stages.core.predicting.")} == {
        "stages.core.running.errors",
        "stages.core.running.files",
    }
    (place / "net").mkdir()
    (place / "net" / "model.json").write_text("{}")
    words[-2] = "net"
    told = subprocess.run(words, capture_output=True, text=True, cwd=place, env=os.environ | path(), check=False)
    assert "lightvision: net is a network for PyTorch, and torch is not installed here" in told.stderr
    (place / "converted.pt2").touch()
    (place / "converted.json").write_text('{"files": {}, "classes": ["a", "b"], "image_size": 8, "fit": "crop"}')
    words[-2] = "converted.pt2"
    told = subprocess.run(words, capture_output=True, text=True, cwd=place, env=os.environ | path(), check=False)
    assert "lightvision: converted.pt2 is asked by the environment that made it" in told.stderr
    assert "Traceback" not in told.stderr


def test_what_could_not_be_printed_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("made")
    vars(made)["add"] = lambda commands, name: commands.add_parser(name).set_defaults(run=lambda: print("told"))
    monkeypatch.setitem(sys.modules, "made", made)
    monkeypatch.setattr(command, "COMMANDS", {"made": ("a command that prints", "made")})
    with open("/dev/full", "w") as full:  # which would fail once more when it is closed
        monkeypatch.setattr(sys, "stdout", full)
        assert lightvision(monkeypatch, "made") == "lightvision: No space left on device"


def test_every_command_is_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    assert lightvision(monkeypatch, "--help") == 0
    assert set(sys.modules) == before
    told = capsys.readouterr().out
    for name, (summary, module) in {**command.COMMANDS, **command.GROUPS}.items():
        assert f"    {name}" in told
        assert summary.split()[0] in told
        assert find_spec(module), module


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("uv"), reason="uv is not here")
def test_three_packages_are_enough(place: Path) -> None:
    """Of the versions of this environment, in one of its own."""
    wanted = [f"{name}=={metadata.version(name)}" for name in ("numpy", "onnxruntime", "pillow")]
    environment = place / "environment"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    installed = subprocess.run(["uv", "pip", "install", "-q", "--python", python, *wanted], check=False)
    if installed.returncode:
        pytest.skip("no registry is to be reached")
    words = [python, "-m", "lightvision", "predict", "made.onnx", "given/a.png"]
    told = subprocess.run(words, capture_output=True, text=True, cwd=place, env=os.environ | path(), check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("given/a.png  red ")


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_bug(place: Path) -> None:
    for number in range(200):
        shutil.copy("given/a.png", place / "given" / f"{number}{'x' * 200}.png")
    asked = f"PYTHONUNBUFFERED= {sys.executable} -m lightvision predict made.onnx given --json 2>said"
    piped = f"{asked} | head -1; exit ${{PIPESTATUS[0]}}"
    gone = subprocess.run(["bash", "-c", piped], stdout=subprocess.PIPE, check=False)
    assert (gone.returncode, len(gone.stdout.splitlines())) == (141, 1)
    assert "Errno" not in Path("said").read_text()


def path() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
