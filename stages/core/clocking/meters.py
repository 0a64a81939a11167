"""Joules, by counters that the hardware keeps, read through Zeus (You et al. 2023); a guess is not a measurement.

Zeus is imported where it is used: it takes seconds, and a machine on which it is broken can still be timed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stages.core.clocking import ways
from stages.core.clocking.tasks import Cell

PATIENCE = 1.0  # seconds in which a counter must move


class Unmeasurable(Exception):
    """Why there are no joules here."""


@dataclass(frozen=True)
class Meter:
    """`joules` since whenever the counters began, read before and after all calls of `cell`."""

    source: str
    cell: Cell
    joules: Callable[[], float]


def find(gpu: bool) -> tuple[Meter | None, dict[str, str | None]]:
    """What there is, and what to say of it."""
    reasons: list[str] = []
    for counters in (processor, graphics)[: 2 if gpu else 1]:
        try:
            meter = counters()
        except Unmeasurable as error:
            reasons.append(str(error))
        else:
            return meter, {"source": meter.source, "why": ""}
    return None, {"source": None, "why": f"not measurable here: {'; '.join(reasons)}"}


def processor() -> Meter:
    with _unmeasurable("RAPL"):
        from zeus.device.cpu.rapl import RAPLCPUs

        packages = RAPLCPUs().cpus
        return _moving(
            Meter(
                "RAPL: all of the processor, its idle power and whatever else runs on it included; one thread, batch 1",
                Cell(ways.ONE_THREAD, 1),
                lambda: sum(package.get_total_energy_consumption().cpu_mj for package in packages) / 1e3,
            )
        )


def graphics() -> Meter:
    with _unmeasurable("NVML"):
        from zeus.device.gpu import get_gpus

        gpus = get_gpus()
        return _moving(
            Meter(
                f"NVML: all of the {gpus.get_name(0)}, its idle power included, and nothing of the processor; batch 1",
                Cell(ways.GPU, 1),
                lambda: gpus.get_total_energy_consumption(0) / 1e3,
            )
        )


@contextmanager
def _unmeasurable(counters: str) -> Iterator[None]:
    """Whatever a library, a driver or a container does to a counter."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        raise Unmeasurable(said if counters in said else f"{counters}: {said}") from error


def _moving(meter: Meter) -> Meter:
    """In some virtual machines counters are there and stand still."""
    first, until = meter.joules(), time.monotonic() + PATIENCE
    while meter.joules() == first:
        if time.monotonic() > until:
            raise TimeoutError("its counters stand still")
        time.sleep(0.01)
    return meter
