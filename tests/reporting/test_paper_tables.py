"""Tables in files, read back by others than those who wrote them."""

import csv
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from stages.core.reporting.paper import blocks, tabulating
from stages.core.reporting.sheets import Cell, Row, Table

NASTY = (
    "a|b",
    "*bold*",
    "[an option]",
    "<b>&amp;",
    "#let x = 1",
    "100 %_$y^{2}~\\",
    "`code`, [link](x)",
    'say "no",\nthen go',
    "鳥 − ×",
)
TABLE = Table(
    "A title",
    "Class",
    ("Recall", "Word", "Word"),
    [
        Row(
            name,
            "hint" if at else "",
            [Cell("99.4 %", ("[98.0, 99.8]", "n 7"), "noisy", value=0.994, low=0.98, high=at)],
        )
        for at, name in enumerate(NASTY)
    ],
)
for one in TABLE.rows:
    one.cells.extend((Cell(one.label), Cell(quiet="none")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tabulating.write(tmp_path, {"one": TABLE})
    return tmp_path


def test_csv_holds_numbers_as_numbers_and_words_as_they_are(folder: Path) -> None:
    with (folder / "one.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["Class", "hint", "Recall", "Recall low", "Recall high", "Recall said", "Word", "Word 2"]
    assert [row["Class"] for row in rows] == list(NASTY)
    assert [row["Word"] for row in rows] == list(NASTY)
    assert {row["Word 2"] for row in rows} == {"none"}
    assert [float(row["Recall high"]) for row in rows] == list(range(len(NASTY)))
    assert {(float(row["Recall"]), float(row["Recall low"])) for row in rows} == {(0.994, 0.98)}
    assert {row["Recall said"] for row in rows} == {"99.4 % [98.0, 99.8]; n 7; noisy"}


def test_a_cell_without_a_number_leaves_a_column_of_numbers_empty(tmp_path: Path) -> None:
    rows = [Row("a", "", [Cell("1.5 ms", value=1.5)]), Row("b", "", [Cell(quiet="not shipped")])]
    tabulating.csv(tmp_path / "x.csv", Table("", "", ("time",), rows))
    text = (tmp_path / "x.csv").read_text(encoding="utf-8")
    assert text.splitlines() == ["name,time,time said", "a,1.5,1.5 ms", "b,,not shipped"]


def test_markdown_shows_every_name_as_it_is(folder: Path) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse((folder / "one.md").read_text(encoding="utf-8"))
    cells = [token for token in tokens if token.type == "inline"]
    texts = ["".join(child.content for child in cell.children or ()) for cell in cells]
    assert {child.type for cell in cells for child in cell.children or ()} <= {"text", "text_special"}
    lines = [texts[at : at + 4] for at in range(0, len(texts), 4)]
    assert lines[0] == ["Class", *TABLE.heads]
    words = [name.replace("\n", " ") for name in NASTY]
    assert [line[0] for line in lines[1:]] == [words[0], *(f"{name} (hint)" for name in words[1:])]
    assert [line[2] for line in lines[1:]] == words


def test_latex_has_rules_and_no_bare_special(folder: Path) -> None:
    """Every special character is either escaped or what makes the table."""
    text = (folder / "one.tex").read_text(encoding="utf-8")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"\begin{tabular}{lrll}" in text
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(NASTY)
    for line in body:
        assert line.endswith(r" \\")
        assert not line.startswith(("[", "*")), "an option of the line before"
        bare = re.sub(
            r"\{\}(?=\[|\*)|\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar)\{\}|\\[&%$#_{}]",
            "",
            line[:-3],
        )
        assert bare.count("&") == 3
        assert not re.search(r"[\\%$#_{}^<>|]", bare), line


def test_a_long_table_is_cut_and_tells_where_the_rest_is() -> None:
    rows = [Row(str(at), "", [Cell(str(at))] * 12) for at in range(100)]
    cut = blocks.sheet("classes", Table("", "", tuple(map(str, range(12))), rows))
    assert cut.more == "… and 76 more rows and 2 more columns, see tables/classes.csv"
    assert (len(cut.table.rows), len(cut.table.heads), len(cut.table.rows[0].cells), len(cut.wordy)) == (24, 10, 10, 10)
    assert blocks.sheet("classes", Table("", "", ("a",), [Row("", "", [Cell()])] * 24)).more == ""
