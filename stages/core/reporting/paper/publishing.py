"""The report as a paper, as tables and as figures: what the page shows, for other eyes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.reporting.paper import figures, manuscript, sweeping, tabulating, typesetting


def publish(content: Mapping[str, Any], paper: Path, tables: Path, drawn: Path) -> None:
    content = {**content, "tables": content["tables"] | sweeping.tables(content["sweeps"])}
    for folder in (tables, drawn):
        folder.mkdir()
    drawings = figures.draw(content["charts"])
    for name, drawing in drawings.items():
        (drawn / f"{name}.svg").write_text(drawing.svg, encoding="utf-8")
    tabulating.write(tables, content["tables"])
    tabulating.statistics(tables / "statistics.csv", content["comparisons"])
    paper.write_bytes(typesetting.typeset(manuscript.write(content, drawings)))
