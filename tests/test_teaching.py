"""`lightvision bench distillation`, from the command line to its numbers."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lightvision import __main__ as command

pytestmark = pytest.mark.slow


def test_what_a_teacher_costs_is_measured(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["lightvision", "bench", "distillation", str(pictures), "--image-size", "16", "--batch-size", "16"]
    words += ["--width", "0.125", "--blocks", "2", "--views", "2", "--rounds", "3", "--epochs", "3"]
    monkeypatch.setattr(sys, "argv", [*words, "--precision", "float32", "--json", str(tmp_path / "found.json")])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        command.main()
    torch.use_deterministic_algorithms(mode=False)
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["learnt"], found["held_out"], found["rounds"], found["views"]) == (96, 24, 3, 2)
    for name in ("alone", "cached", "online"):
        assert len(found[f"{name}_rounds"]["seconds_an_epoch"]) == 3
        assert 0 <= found[f"{name}_accuracy"] <= 1
    for name in ("cached", "online"):
        assert 0 < found[f"{name}_costs_low"] <= found[f"{name}_costs"] <= found[f"{name}_costs_high"]
    gap = found["cached_accuracy"] - found["online_accuracy"]
    assert found["cached_less_online_accuracy"] == pytest.approx(gap)
    assert found["online_costs"] > 1
