"""The paper and its figures: what they say is what the page says, and names stay names."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import typst
from PIL import Image

from stages.core import params
from stages.core.reporting import rendering
from stages.core.reporting.paper import figures, manuscript, palette, publishing, sweeping, tabulating, typesetting
from stages.core.reporting.paper.blocks import Block, Code, Facts, Figures, Heading, Picture, Pictures, Sheet, Text
from stages.core.reporting.paper.figures import Drawing
from stages.core.reporting.paper.publishing import publish
from stages.core.reporting.paper.typesetting import Paper
from stages.core.reporting.sheets import Cell, Row, Table
from stages.core.reporting.sweeps import Sweep
from stages.core.running import sources
from stages.core.running.errors import Refusal
from tests.reporting.world import World

NASTY = '#let x = [*a* <b> $y$ \\ "q" `c` _d_ @e // f]'
STYLE = (sources.ROOT / "stages/core/reporting/page.css").read_text(encoding="utf-8")
FILED = {"pruning-lessons", "channels", "bits", "reliability", "robustness"}  # a figure shows them, or they are long
MARGIN = 0.045  # of a page's width that stays white at either side


def gathered(world: World) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "vega", lambda: "")
        patch.setattr(publishing, "publish", lambda content, *_: seen.append(content))
        world.build(params.load(sources.ROOT / "params.yaml"))
    return seen[0]


@pytest.fixture(scope="session")
def content(world: World) -> dict[str, Any]:
    return gathered(world)


def written(content: dict[str, Any]) -> Paper:
    return manuscript.write(content, {name: Drawing("<svg/>", 100) for name in content["charts"]})


def test_every_table_and_chart_is_shown_once_or_named(content: dict[str, Any]) -> None:
    blocks = written(content).blocks
    tables = [block.table.title for block in blocks if isinstance(block, Sheet)]
    charts = [
        image.file.removesuffix(".svg") for block in blocks if isinstance(block, Figures) for image in block.images
    ]
    assert sorted(charts) == sorted(content["charts"])
    [rest] = [block.text for block in blocks if isinstance(block, Text) and block.text.startswith("Not shown here")]
    named = set(re.findall(r"[\w-]+", rest.partition(":")[2])) - {"and"}
    assert sorted(tables) == sorted(one.title for name, one in content["tables"].items() if name not in named)
    assert named == FILED
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    assert headings[:3] == ["Method", "Results", "Comparisons"]
    assert "Studies" not in headings


def test_the_abstract_is_the_first_screen(content: dict[str, Any]) -> None:
    said = " ".join(written(content).abstract)
    for sentence in (content["headline"], content["recommended"].reason, content["caution"], content["noise"]):
        assert sentence
        assert sentence in said


def paper(*blocks: Block) -> Paper:
    return Paper(NASTY, NASTY, [NASTY], blocks)


def test_names_are_never_markup(tmp_path: Path) -> None:
    """As Typst itself understands the document."""
    table = Table(NASTY, NASTY, (NASTY,), [Row(NASTY, NASTY, [Cell(NASTY, (NASTY,), NASTY, NASTY)])], NASTY)
    sheet = Sheet(table, (True,), NASTY)
    said = [Heading(NASTY), Text(NASTY, NASTY), sheet, Facts({NASTY: NASTY})]
    typesetting.lay_out(tmp_path, paper(*said, Code(NASTY)))
    for selector in ("heading", "figure", "raw"):
        found = typst.query(tmp_path / "paper.typ", selector)
        texts = set(re.findall(r'"text": ?"((?:[^"\\]|\\.)*)"', found))
        assert NASTY in {text.encode().decode("unicode_escape") for text in texts}, selector
        assert not re.search(r'"func": ?"(emph|equation|link|ref|label)"', found), selector


def test_what_is_no_picture_is_one_clear_line() -> None:
    broken = Pictures([Picture("x.png", b"no picture", ["x"], warning=False)], 8, small=True)
    with pytest.raises(Refusal, match=r"^the paper cannot be set: .*PNG"):
        typesetting.typeset(paper(broken))


def test_colours_are_those_of_the_printed_page() -> None:
    printed = STYLE.split("@media print")[1].partition("}")[0]
    for name in ("muted", "quantized", "line-4"):
        assert (
            palette.painted(f"fill: var(--{name})") == f"fill: {printed.split(f'--{name}:')[1].split(';')[0].strip()}"
        )
    with pytest.raises(KeyError):
        palette.painted("var(--no-such-colour)")


SERIES = {"values": {"0": 0.5, "1": 0.75}, "n": 2, "mean": 0.625, "sd": 0.177, "low": 0.25, "high": 0.875}
SERIES |= {"bootstrap_low": 0.5, "bootstrap_high": 0.75, "said": ""}
PAIR = {"missing": [], "n": 2, "difference": 0.125, "sd": 0.1, "low": -0.5, "high": 0.75, "p": 0.25, "p_holm": 0.5}
PAIR |= {"p_wilcoxon": None, "d": 1.25, "p_equivalent": 0.3, "p_equivalent_holm": 0.6, "seeds_for_difference": 7}
PAIR |= {"seeds_for_margin": 9, "said": "", "verdict": "no difference is shown"}


def test_sweeps_are_tables_with_the_numbers_behind_their_words(tmp_path: Path) -> None:
    one = {"metric": "accuracy", "share": True, "margin": 0.01, "series": [SERIES | {"name": "student"}]}
    one |= {"pairs": [PAIR | {"first": "student", "second": "control"}]}
    run = {"row": "", "seed": 0, "fold": None, "experiment": "e", "rev": "r", "machine": None, "test": None}
    told = {"schema": 1, "kind": "seeds", "title": "Seeds", "about": "", "varied": "seed", "confidence": 0.95}
    told |= {"runs": [run | {"params": {}, "metrics": {}}], "failed": [], "comparisons": [one], "commit": "c"}
    sweep = Sweep.model_validate(told | {"power": 0.8, "machine": {}, "date": "2026-01-02"})
    found = sweeping.tables({"main": sweep})
    assert list(found) == ["sweep-main-0", "sweep-main-0-differences"]
    tabulating.write(tmp_path, found)
    [row] = read(tmp_path / "sweep-main-0.csv")
    assert [float(row[name]) for name in ("n", "Mean", "sd", "t interval low", "Bootstrap high")] == [
        *(SERIES[name] for name in ("n", "mean", "sd", "low", "bootstrap_high"))
    ]
    [row] = read(tmp_path / "sweep-main-0-differences.csv")
    heads = ("n", "difference", "interval low", "interval high", "t p", "Holm", "d", "equivalent p")
    names = ("n", "difference", "low", "high", "p", "p_holm", "d", "p_equivalent_holm")
    assert [float(row[head]) for head in heads] == [PAIR[name] for name in names]
    assert (row["verdict"], row["seeds"]) == ("no difference is shown", "7 / 9")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - drawn a moment ago


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in parsed(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_figure_explains_itself_and_fits_its_place(content: dict[str, Any]) -> None:
    drawn = figures.draw({name: content["charts"][name] for name in ("size", "channels")})
    assert {"teacher", "student", "pruned", "quantized"} <= set(texts(drawn["size"].svg))
    assert "control" not in texts(drawn["size"].svg), "which has no file"
    assert "9 of 16" in texts(drawn["channels"].svg)
    assert not any("var(" in one.svg for one in drawn.values())
    assert drawn["size"].width == pytest.approx(figures.THIRD, abs=6)
    assert drawn["channels"].width == pytest.approx(figures.HALF, abs=12)
    root = parsed(drawn["size"].svg)
    assert float(root.attrib["width"]) == 2 * drawn["size"].width
    assert root.attrib["viewBox"].split()[2] == f"{drawn['size'].width:g}"


def pages(folder: Path, paper: Paper) -> list[np.ndarray]:
    typesetting.lay_out(folder, paper)
    drawn: Sequence[bytes] = typst.compile(folder / "paper.typ", format="png", ppi=60)  # pyright: ignore[reportAssignmentType]
    return [np.asarray(Image.open(io.BytesIO(page)).convert("L")) for page in drawn]


def inside(page: np.ndarray) -> bool:
    edge = round(page.shape[1] * MARGIN)
    return page[:, :edge].min() > 250 and page[:, -edge:].min() > 250


@pytest.mark.slow
def test_a_published_run_is_the_same_every_time(content: dict[str, Any], tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        publish(content, folder / "report.pdf", folder / "tables", folder / "figures")
    one, two = ({path.relative_to(folder): path for path in folder.rglob("*.*")} for folder in folders)
    assert one.keys() == two.keys()
    assert all(one[name].read_bytes() == two[name].read_bytes() for name in one)
    names = {path.name for path in one}
    assert {f"{name}.svg" for name in content["charts"]} <= names
    assert {f"{name}.{ending}" for name in content["tables"] for ending in ("csv", "md", "tex")} <= names
    rows = {(row["network"], row["other"]): row for row in read(folders[0] / "tables/statistics.csv")}
    quantized = rows["quantized", "teacher"]
    assert (int(quantized["pictures"]), int(quantized["lost"]), int(quantized["won"])) == (200, 12, 0)
    assert float(quantized["difference"]) == -0.06
    assert float(quantized["low"]) < -0.06 < float(quantized["high"]) < 0
    assert float(quantized["p_mcnemar"]) == pytest.approx(2 * 0.5**12)
    assert float(quantized["p_holm"]) == pytest.approx(len(rows) * 2 * 0.5**12)


@pytest.mark.slow
def test_nothing_leaves_the_page(content: dict[str, Any], tmp_path: Path) -> None:
    seen = pages(tmp_path, manuscript.write(content, figures.draw(content["charts"])))
    assert 6 <= len(seen) <= 9
    assert all(inside(page) for page in seen)


@pytest.mark.slow
def test_a_hundred_classes_with_long_names_stay_on_the_page(tmp_path: Path) -> None:
    names = tuple(f"species number {number} of a genus with a long name" for number in range(100))
    content = gathered(World(tmp_path / "world", {"quantized": range(50)}, classes=names))
    paper = manuscript.write(content, figures.draw(content["charts"]))
    said = [block.more for block in paper.blocks if isinstance(block, Sheet) and block.more]
    assert "… and 76 more rows, see tables/classes.csv" in said
    assert all(inside(page) for page in pages(tmp_path, paper))
