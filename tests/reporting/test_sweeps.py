"""Seeds and ablations on the page: what `lightvision sweep` wrote, and the chart of it."""

import json
from pathlib import Path

import pytest
import vl_convert

from lightvision import comparing
from lightvision.comparing import Question
from stages.core import params
from stages.core.reporting.sweeps import Failure, Run, Sweep
from stages.core.running import files, sources
from tests.reporting.reader import Page
from tests.reporting.world import World


@pytest.mark.slow
def test_seeds_are_shown_with_their_tests_and_what_failed(tmp_path: Path) -> None:
    world = World(tmp_path)
    series = {"cut <b>": {"seed 0": 0.91, "seed 1": 0.94, "seed 2": 0.92}, "whole": {"seed 0": 0.9, "seed 1": 0.9}}
    question = Question("accuracy on test", share=True, margin=0.01, confidence=0.95)
    sweep = Sweep(
        schema=1,
        kind="ablation",
        title="A <sweep>",
        about="About it",
        varied="seeds vary split",
        confidence=0.95,
        power=0.8,
        runs=[Run(row="", seed=0, fold=None, experiment="e", rev="r", machine=None, test=None, params={}, metrics={})],
        failed=[Failure(row="whole", seed=2, fold=None, reason="it <fell>")],
        comparisons=[comparing.compare(question, series, [("cut <b>", "whole")])],
        commit="c" * 40,
        machine={"cpu": "A <CPU>"},
        date="2026-01-02",
    )
    files.write_json(world.metrics / "sweeps/one.json", sweep.model_dump(by_alias=True))
    html = world.build(params.load(sources.ROOT / "params.yaml"))
    page = Page(html)
    assert page.row("whole")[:3] == ["2", "90.0\N{NO-BREAK SPACE}%", "0.00"]
    assert page.row("whole")[-1] == "no spread: every seed gives the same"
    difference = page.row("cut <b> − whole")
    assert difference[:2] == ["2", "+2.50"]
    assert difference[3] == "no difference is shown; only one has seed 2"
    assert "Failed: whole seed 2: it <fell>" in page.text
    assert "1 experiments" not in page.text
    assert "#sweeps" in page.loads
    assert "cut <b>" not in html
    assert vl_convert.vegalite_to_vega(json.loads(page.scripts[1])["sweep-one-0"])["marks"]


def test_without_sweeps_the_page_has_no_place_for_them(page: Page) -> None:
    assert "#sweeps" not in page.loads
