"""Where and how precisely is computed: what was asked for, or one line that says why not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stages.core import machine, params
from stages.core.running.errors import Refusal
from stages.core.training.loop import Lesson
from tests.lessons import new


@pytest.mark.parametrize(
    ("wanted", "native", "expected"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("float16", True, torch.bfloat16),
        ("float16", False, torch.float32),
    ],
)
def test_precision_is_what_was_asked_for_or_what_the_processor_is_good_at(
    settings: params.Params,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: str,
    native: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "amx_bf16": False})
    here = machine.choose(settings.compute.model_copy(update={"precision": wanted}), 0)
    with here.autocast():
        assert nn.Linear(3, 3)(torch.ones(1, 3)).dtype == expected
    assert ("float16 is slow on CPUs and not used here" in capsys.readouterr().out) == (wanted == "float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"compute\.device: no cuda on this machine; here: auto, cpu"):
        machine.choose(settings.compute.model_copy(update={"device": "cuda"}), 0)


def test_without_a_compiler_nothing_is_compiled(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refusal, match=r"compute\.compile needs a C\+\+ compiler"):
        replace(lesson.machine, compile="default").compiled(new())
