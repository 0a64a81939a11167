"""What a processor does with integers is told by its instructions, and is what ONNX Runtime's kernels do here."""

import platform
from pathlib import Path

import pytest

from stages.core import hardware
from tests import saturation


@pytest.mark.parametrize(
    ("instructions", "products", "reason", "slow"),
    [
        ({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}, "exact", "AMX", False),
        ({"avx2", "avx512f", "avx512_vnni"}, "exact", "AVX512-VNNI", False),
        ({"avx2", "avx_vnni"}, "exact", "AVX-VNNI", False),
        ({"avx2", "avx512f"}, "saturating", "AVX512 without VNNI: vpmaddubsw", True),
        ({"avx2", "sse4_2"}, "saturating", "AVX2 without VNNI: vpmaddubsw", True),
        ({"sse4_2"}, "exact", "no VNNI, AMX or dot product", True),
        ({"asimd", "asimddp", "i8mm"}, "exact", "i8mm", False),
        ({"asimd", "asimddp"}, "exact", "dot product", False),
        ({"asimd"}, "exact", "no VNNI, AMX or dot product", True),
        (set(), "exact", "no VNNI, AMX or dot product", True),
    ],
)
def test_products_by_instructions(
    monkeypatch: pytest.MonkeyPatch, instructions: set[str], products: str, reason: str, slow: bool
) -> None:
    """py-cpuinfo spells avx512_vnni as the operating system does."""
    monkeypatch.setattr(platform, "machine", lambda: "any")
    for flags in (instructions, {flag.replace("512_", "512") for flag in instructions}):
        monkeypatch.setattr(hardware, "_processor", lambda flags=flags: {"flags": sorted(flags)})
        assert hardware.integer_products() == products
        told = hardware.describe()
        assert told["integer_products"] == products
        because = str(told["integer_products_because"])
        assert because.startswith(reason) or reason in because.split(":")[0]
        assert ("not expected to be 3 times as fast" in because) == slow


def test_an_apple_processor_says_nothing_and_has_the_dot_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_processor", dict)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert str(hardware.describe()["integer_products_because"]).startswith("ARM's dot product")


def test_this_machine_multiplies_as_is_told() -> None:
    """In ONNX Runtime, whose answers say it without looking at instructions."""
    shares = saturation.wrong(None)
    assert (shares["linear-full"] == 0) == (hardware.integer_products() == "exact")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo here")
def test_the_instructions_are_those_that_linux_tells() -> None:
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert hardware.describe()["instructions"] == [name for name in hardware.INSTRUCTIONS if name in words]
