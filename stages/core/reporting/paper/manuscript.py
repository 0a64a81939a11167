"""Which of the report's words, tables and charts stand where in the paper."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

from stages.core import words
from stages.core.reporting.charts import Specification
from stages.core.reporting.paper import blocks, passages
from stages.core.reporting.paper.blocks import Block, Figure, Figures, Heading, Text
from stages.core.reporting.paper.figures import Drawing
from stages.core.reporting.paper.passages import Content, Passage
from stages.core.reporting.paper.typesetting import Paper
from stages.core.reporting.sheets import Table


@dataclass(frozen=True)
class Section:
    """Tables and charts by their names, or patterns of them; one that finds nothing to say is left out."""

    heading: str
    passage: Passage
    tables: tuple[str, ...] = ()
    charts: tuple[str, ...] = ()


SECTIONS = (
    Section("Method", passages.method),
    Section("Results", passages.results, ("budget", "answers", "sizes", "latency"), ("size", "latency", "energy")),
    Section("Comparisons", passages.comparisons, ("comparisons", "agreement")),
    Section("Learning", passages.learning, charts=("teacher-*", "distill-*", "prune-*", "quantize-*")),
    Section("Distillation", passages.distillation, ("seeds", "twins", "companions"), ("seeds",)),
    Section("Pruning", passages.pruning, ("pruning", "pruning-seeds", "cuts", "heads"), ("channels", "zeros", "sens*")),
    Section(
        "Quantization",
        passages.quantization,
        ("quantization", "quantization-seeds", "flows", "places"),
        ("codes", "choices"),
    ),
    Section("The exported files", passages.files, ("parity", "contents", "operators")),
    Section("Confidence and robustness", passages.judged, ("robustness-means", "subgroups"), ("reli*", "robustness-*")),
    Section("Classes and failures", passages.classes, ("mistakes", "classes"), ("confusion",)),
    Section("Where the networks look", passages.looking),
    Section("Studies", passages.nothing, ("study-*", "sweep-*"), ("study-*", "sweep-*")),
    Section("Devices", passages.nothing, ("devices", "targets", "measured-devices")),
    Section("Benchmark", passages.benchmark, ("benchmark",)),
    Section("Origin", passages.origin),
)


def write(content: Content, drawings: Mapping[str, Drawing]) -> Paper:
    tables, charts = content["tables"], content["charts"]
    parts = [part for section in SECTIONS for part in _section(section, content, drawings)]
    rest = _rest("tables", tables, [name for section in SECTIONS for name in _named(tables, section.tables)])
    rest += _rest("figures", charts, [name for section in SECTIONS for name in _named(charts, section.charts)])
    return Paper(content["title"], passages.subtitle(content), passages.abstract(content), [*parts, *rest])


def _section(section: Section, content: Content, drawings: Mapping[str, Drawing]) -> list[Block]:
    tables: Mapping[str, Table] = content["tables"]
    charts: Mapping[str, Specification] = content["charts"]
    figures = [_figure(name, charts[name], drawings[name]) for name in _named(charts, section.charts)]
    parts: list[Block] = [
        *section.passage(content),
        *(blocks.sheet(name, tables[name]) for name in _named(tables, section.tables)),
        *([Figures(figures)] if figures else ()),
    ]
    return [Heading(section.heading), *parts] if parts else []


def _named(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    """In the order in which the section tells them."""
    return list(dict.fromkeys(name for pattern in patterns for name in names if fnmatch(name, pattern)))


def _figure(name: str, chart: Specification, drawing: Drawing) -> Figure:
    return Figure(f"{name}.svg", drawing.svg.encode(), drawing.width, _caption(chart))


def _caption(chart: Specification) -> str:
    """Of what a chart says to those who do not see it, what it shows; where else the numbers stand is the page's."""
    return chart["description"].partition(";")[0]


def _rest(folder: str, there: Iterable[str], shown: list[str]) -> list[Text]:
    """What stands in files alone."""
    left = [name for name in there if name not in shown]
    return [Text(f"Not shown here, but in {folder}/: {words.listed(left)}.")] if left else []
