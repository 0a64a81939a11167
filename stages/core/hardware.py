"""The machine a number was measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path

import cpuinfo

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
PACKAGES = ("torch", "brevitas", "torch-pruning", "onnx", "onnxruntime", "numpy")


def describe() -> dict[str, str | int | list[str]]:
    found = cpuinfo.get_cpu_info()
    flags = {flag.replace("avx512vnni", "avx512_vnni") for flag in found.get("flags", [])}
    return {
        "cpu": found.get("brand_raw", platform.processor() or "unknown"),
        "cores": os.cpu_count() or 0,
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "governor": _governor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    } | {name: metadata.version(name) for name in PACKAGES}


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "unknown"
