"""What README.md states is what the project's own commands wrote."""

from stages.core.running.sources import ROOT
from tests import readme_table


def test_the_results_are_those_of_the_metrics() -> None:
    assert readme_table.table() in (ROOT / "README.md").read_text(encoding="utf-8")
