"""Joules that a training took, from counters that the hardware keeps; where it keeps none, nothing is said."""

from pathlib import Path

RAPL = Path("/sys/class/powercap")


class Meter:
    """Of the processor's packages (RAPL), all that runs on them included; a guess is not a measurement."""

    def __init__(self, root: Path = RAPL) -> None:
        packages = [folder for folder in sorted(root.glob("intel-rapl:*")) if folder.name.count(":") == 1]
        self._packages = [folder for folder in packages if _read(folder / "energy_uj") is not None]
        self._before = self._counters()

    def joules(self) -> dict[str, float]:
        """Since the last call; the counters begin anew at their end."""
        now, used = self._counters(), 0
        for folder, before, after in zip(self._packages, self._before, now, strict=True):
            used += after - before if after >= before else after + (_read(folder / "max_energy_range_uj") or 0) - before
        self._before = now
        return {"joules": used / 1e6} if self._packages else {}

    def _counters(self) -> list[int]:
        return [_read(folder / "energy_uj") or 0 for folder in self._packages]


def _read(path: Path) -> int | None:
    """Root alone may read them on most machines."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
