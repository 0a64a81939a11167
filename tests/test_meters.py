"""Joules are those of counters that move; where there are none, it is said why."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from zeus.device.cpu import rapl

from stages.core.clocking import meters, ways
from stages.core.clocking.tasks import Cell

RANGE = 1_000_000


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Two, of which the second has memory beside it; of wrapping, another test asks."""
    root = tmp_path / "intel-rapl"
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:1/intel-rapl:1:0"):
        (root / name).mkdir(parents=True)
        (root / name / "name").write_text("dram" if name.endswith(":1:0") else "package")
        (root / name / "max_energy_range_uj").write_text(f"{RANGE}\n")
        (root / name / "energy_uj").write_text("1000\n")
    monkeypatch.setattr(rapl, "RAPL_DIR", str(root))
    monkeypatch.setattr(rapl, "CONTAINER_RAPL_DIR", str(root))
    monkeypatch.setattr(rapl, "RaplWraparoundTracker", lambda *_: SimpleNamespace(get_num_wraparounds=lambda: 0))
    rapl.rapl_is_available.cache_clear()
    yield [root / "intel-rapl:0" / "energy_uj", root / "intel-rapl:1" / "energy_uj"]
    rapl.rapl_is_available.cache_clear()


def moving(counter: Path, by: int) -> Callable[[float], None]:
    """While others sleep."""

    def move(_: float) -> None:
        counter.write_text(str(int(counter.read_text()) + by))

    return move


def test_joules_are_the_microjoules_of_all_packages(packages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters.time, "sleep", moving(packages[1], 1))
    meter, said = meters.find(gpu=False)
    assert meter
    assert meter.cell == Cell(ways.ONE_THREAD, 1)
    assert said == {"source": meter.source, "why": ""}
    assert "all of the processor" in meter.source
    before = meter.joules()
    packages[0].write_text("301000\n")
    packages[1].write_text(str(int(packages[1].read_text()) + 500_000))
    assert meter.joules() - before == pytest.approx(0.8)


def test_counters_that_stand_still_measure_nothing(packages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "PATIENCE", 0.05)
    assert meters.find(gpu=False) == (
        None,
        {"source": None, "why": "not measurable here: RAPL: its counters stand still"},
    )


def test_counters_that_nobody_may_read_are_told(packages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    packages[0].unlink()
    packages[0].mkdir()  # root reads whatever has bits; nobody reads a folder
    assert str(meters.find(gpu=False)[1]["why"]).startswith("not measurable here: RAPL: [Errno 21] Is a directory")


def test_a_machine_without_counters_says_so(
    tmp_path: Path, packages: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(rapl, "CONTAINER_RAPL_DIR", str(tmp_path / "none"))
    why = {"source": None, "why": "not measurable here: RAPL is not supported on this CPU"}
    assert meters.find(gpu=False) == (None, why)
    (tmp_path / "none").mkdir()
    rapl.rapl_is_available.cache_clear()
    assert meters.find(gpu=False)[0] is None


@pytest.mark.parametrize("module", ["zeus.device.cpu.rapl", "zeus.device.gpu"])
def test_a_zeus_that_cannot_be_imported_fails_nothing(
    tmp_path: Path, packages: list[Path], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(meters, "PATIENCE", 0.0)
    monkeypatch.setitem(sys.modules, module, None)
    meter, said = meters.find(gpu=True)
    assert meter is None
    assert f"import of {module} halted" in str(said["why"])


def test_a_gpu_is_metered_where_the_processor_is_not(packages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeus counts millijoules."""
    counter = iter(range(0, 10_000_000, 1500))
    gpus = SimpleNamespace(get_name=lambda _: "H200", get_total_energy_consumption=lambda _: next(counter))
    fake = SimpleNamespace(get_gpus=lambda: gpus)
    monkeypatch.setattr(meters, "PATIENCE", 0.0)
    monkeypatch.setitem(sys.modules, "zeus.device.gpu", fake)
    meter, said = meters.find(gpu=True)
    assert meter
    assert meter.cell == Cell(ways.GPU, 1)
    assert "all of the H200" in str(said["source"])
    assert -meter.joules() + meter.joules() == 1.5
    assert meters.find(gpu=False)[0] is None


@pytest.mark.slow
def test_a_counter_that_begins_anew_goes_on_in_zeus(packages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks once a second."""
    monkeypatch.undo()
    tracked = rapl.RAPLFile(str(packages[0].parent))
    try:
        packages[0].write_text("999000\n")
        before = tracked.read()
        time.sleep(3)
        packages[0].write_text("4000\n")
        until = time.monotonic() + 10
        while tracked.read() < before and time.monotonic() < until:
            time.sleep(0.1)
        assert tracked.read() - before == pytest.approx(5)
    finally:
        tracked.wraparound_tracker._stop()
