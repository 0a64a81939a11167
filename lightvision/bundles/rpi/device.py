"""The device that a number was measured on, as Linux tells of it."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Set
from importlib import metadata
from pathlib import Path
from typing import Any

PROCESSOR = Path("/proc/cpuinfo")
MODEL = Path("/proc/device-tree/model")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
HEAT = Path("/sys/class/thermal/thermal_zone0/temp")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
IN_32_BITS, IN_PAIRS = {"amx_int8", "avx512_vnni", "avx_vnni"}, {"avx2", "avx512f"}
PACKAGES = ("onnxruntime", "numpy", "pillow")


def name() -> str:
    """Of the board, or else of the host, such as a file can have."""
    return re.sub(r"[^a-z0-9]+", "-", (_board() or platform.node() or "device").lower()).strip("-")


def describe() -> dict[str, Any]:
    told = _text(PROCESSOR)
    return {
        "cpu": _processor(told),
        "board": _board(),
        "cores": os.cpu_count() or 0,
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "instructions": (found := [one for one in INSTRUCTIONS if one in _flags(told)]),
        "integer_products": products(set(found)),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
    } | {package: metadata.version(package) for package in PACKAGES}


def state() -> dict[str, Any]:
    """What changes while it works; `throttled` is the firmware's word, 0x0 where it never slowed the processor."""
    return {
        "governor": _text(GOVERNOR) or None,
        "load_average": round(os.getloadavg()[0], 2),
        "celsius": int(heat) / 1000 if (heat := _text(HEAT)) else None,
        "throttled": _throttled(),
    }


def products(instructions: Set[str]) -> str:
    """Whether uint8 x int8 is added as it is: x86 without VNNI adds pairs in 16 bits, where they saturate."""
    return "saturating" if instructions & IN_PAIRS and not instructions & IN_32_BITS else "exact"


def _processor(told: str) -> str:
    """Of ARM, the kernel tells numbers alone."""
    if name := _field("model name", told):
        return name
    return " ".join([platform.machine(), _field("CPU implementer", told), _field("CPU part", told)]).strip()


def _flags(told: str) -> set[str]:
    return set(_field("Features" if platform.machine() == "aarch64" else "flags", told).split())


def _field(name: str, told: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1].strip() if found else ""


def _board() -> str | None:
    return _text(MODEL).rstrip("\0") or None


def _throttled() -> str | None:
    if not shutil.which("vcgencmd"):
        return None
    done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True)
    return done.stdout.strip().removeprefix("throttled=") or None


def _text(path: Path) -> str:
    """Nothing where the kernel tells nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
