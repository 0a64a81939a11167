"""The machine a number was measured on."""

import os
import platform
from collections.abc import Set
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import cpuinfo
import psutil
import pynvml

from stages.core.running import processes

INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)
PACKAGES = ("torch", "brevitas", "torch-pruning", "onnx", "onnxruntime", "numpy", "scipy", "zeus")


Products = Literal["exact", "saturating"]


@dataclass(frozen=True)
class Multiplier:
    """What a processor that has these instructions does with uint8 x int8, as ONNX Runtime uses it."""

    instructions: frozenset[str]
    products: Products
    why: str


SLOW = "INT8 is not expected to be 3 times as fast as float32"
IN_PAIRS = (
    "vpmaddubsw adds pairs of products in 16 bits, where they saturate; three instructions do what VNNI does in one, "
    f"which leaves 4/3 as many products as in float32: {SLOW}"
)
MULTIPLIERS = (  # the first whose instructions are all there
    Multiplier(frozenset({"amx_int8"}), "exact", "AMX adds products in 32 bits"),
    Multiplier(frozenset({"avx512_vnni"}), "exact", "AVX512-VNNI adds products in 32 bits, 4 for each one of float32"),
    Multiplier(frozenset({"avx_vnni"}), "exact", "AVX-VNNI adds products in 32 bits, 4 for each one of float32"),
    Multiplier(frozenset({"avx512f"}), "saturating", f"AVX512 without VNNI: {IN_PAIRS}"),
    Multiplier(frozenset({"avx2"}), "saturating", f"AVX2 without VNNI: {IN_PAIRS}"),
    Multiplier(frozenset({"i8mm"}), "exact", "ARM's i8mm adds products in 32 bits, 8 for each one of float32"),
    Multiplier(frozenset({"asimddp"}), "exact", "ARM's dot product adds in 32 bits, 4 for each one of float32"),
    Multiplier(frozenset(), "exact", f"no VNNI, AMX or dot product: products are widened first, and {SLOW}"),
)


def integer_products() -> Products:
    """Whether this machine adds products of uint8 and int8 as they are."""
    return multiplier(_instructions()).products


def multiplier(instructions: Set[str]) -> Multiplier:
    return next(found for found in MULTIPLIERS if found.instructions <= instructions)


def describe() -> dict[str, str | int | float | list[str] | None]:
    here = multiplier(_instructions())
    return {
        "cpu": _processor().get("brand_raw", platform.processor() or "unknown"),
        "cores": os.cpu_count() or 0,
        "cores_usable": processes.cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "instructions": [name for name in INSTRUCTIONS if name in _instructions()],
        "integer_products": here.products,
        "integer_products_because": here.why,
        "governor": _governor(),
        "load_average": load_average(),
        "gpu": _graphics(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    } | {name: metadata.version(name) for name in PACKAGES}


@cache
def _processor() -> dict[str, Any]:
    return cpuinfo.get_cpu_info()


def _instructions() -> set[str]:
    """Apple says nothing of its processors' instructions; all of them have the dot product."""
    flags = {flag.replace("avx512vnni", "avx512_vnni") for flag in _processor().get("flags", [])}
    return flags | ({"asimddp"} if platform.machine() == "arm64" else set())


def load_average() -> float:
    """Processes that ran or waited for a core, over the last minute."""
    return round(psutil.getloadavg()[0], 2)


def _graphics() -> str | None:
    """The first that NVIDIA's driver knows."""
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return None


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "unknown"
