"""Blocks become pages. Words travel as JSON, so that no name of a class can be taken for markup."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typst

from stages.core.reporting.paper import figures, palette
from stages.core.reporting.paper.blocks import Block, Figure, Figures, Image, Pictures, plain
from stages.core.running import files
from stages.core.running.errors import Refusal

FONT = "Libertinus Serif"
TEMPLATE = Path(__file__).parent / "paper.typ"


@dataclass(frozen=True)
class Paper:
    title: str
    subtitle: str
    abstract: Sequence[str]
    blocks: Sequence[Block]


def typeset(paper: Paper) -> bytes:
    """The same bytes for the same paper: without a date. Fonts are Typst's own; those of the system write only what
    these cannot, such as 鳥."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, paper)
        try:
            return typst.compile(folder / TEMPLATE.name)
        except typst.TypstError as error:
            raise Refusal(f"the paper cannot be set: {error.message}") from error


def lay_out(folder: Path, paper: Paper) -> None:
    """All that the template reads."""
    told = {"title": paper.title, "subtitle": paper.subtitle, "abstract": paper.abstract}
    told |= {"colours": palette.colours(), "blocks": [plain(block) for block in paper.blocks]}
    files.write_json(folder / "paper.json", told)
    (folder / TEMPLATE.name).write_bytes(TEMPLATE.read_bytes())
    (folder / "images").mkdir()
    for block in paper.blocks:
        for image in block.images if isinstance(block, Figures | Pictures) else ():
            if image.content:
                (folder / "images" / image.file).write_bytes(_in_the_font_of_the_text(image))


def _in_the_font_of_the_text(image: Image) -> bytes:
    if isinstance(image, Figure):
        return image.content.replace(figures.FONT.encode(), FONT.encode())
    return image.content
