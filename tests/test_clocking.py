"""Files take turns in processes of their own; intervals know that one round resembles the next."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper
from scipy import stats

from stages.core import params
from stages.core.clocking import describing, intervals, timing, turns, ways, worker
from stages.core.clocking.meters import Meter
from stages.core.clocking.tasks import Cell
from stages.core.clocking.turns import Measured
from stages.core.running.errors import Refusal
from stages.core.shipping import sessions

pytestmark = pytest.mark.slow

SINGLE, PAIR = Cell(ways.ONE_THREAD, 1), Cell(ways.ALL_THREADS, 2)
PICTURES = np.zeros((1, 4, 4, 3), np.uint8)
SETTINGS = params.Benchmark(rounds=3, seconds_per_file=0.01, batches=(2,), confidence=0.95)


def file(to: Path, *, no_number: bool = False) -> Path:
    """Means of the colours; their logarithm is no number where a picture is black."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Log" if no_number else "Exp", ["means"], ["logits"]),
    ]
    taken = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "means", [taken], [given]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, to)
    return to


def chain(generator: np.random.Generator, alike: float, rounds: int) -> np.ndarray:
    """Each round hangs on the one before; the median of all is 0."""
    steps, found = generator.standard_normal(rounds + 30), [0.0]
    for step in steps:
        found.append(alike * found[-1] + step)
    return np.array(found[-rounds:])


@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_intervals_hold_the_truth_about_as_often_as_they_say(alike: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 95 % of the chains; those that take rounds for independent hold it in 72 % where rounds are alike."""
    monkeypatch.setattr(intervals, "RESAMPLED", 400)
    generator = np.random.default_rng(11)
    found = [intervals.interval(chain(generator, alike, 40), np.median, 0.95) for _ in range(100)]
    assert np.mean([low <= 0 <= high for low, high in found]) >= 0.85


def test_independent_rounds_get_the_interval_of_scipy() -> None:
    rounds = np.random.default_rng(3).permutation(200).astype(float)
    assert intervals.block(rounds) == 1
    expected = stats.bootstrap((rounds,), np.median, method="percentile", n_resamples=2000, rng=1).confidence_interval
    low, high = intervals.interval(rounds, np.median, 0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=4)


def test_a_mean_of_few_rounds_has_students_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentiles alone are too narrow, by one part in twenty where there are ten rounds (Hesterberg 2015)."""
    monkeypatch.setattr(intervals, "RESAMPLED", 40_000)
    rounds = np.random.default_rng(0).permutation(stats.norm.ppf((np.arange(10) + 0.5) / 10))
    assert intervals.block(rounds) == 1
    expected = stats.t.interval(0.95, 9, rounds.mean(), stats.sem(rounds))
    assert intervals.interval(rounds, np.mean, 0.95) == pytest.approx(expected, rel=0.03)


def test_rounds_that_never_differ_have_an_interval_of_no_width() -> None:
    assert intervals.interval(np.full(9, 2.5), np.median, 0.95) == (2.5, 2.5)
    assert intervals.block(np.array([1.0, 2, 2, 2, 2])) == 1


def test_blocks_are_as_long_as_carlstein_says() -> None:
    rounds = chain(np.random.default_rng(0), 0.5, 64)
    alike = stats.spearmanr(rounds[:-1], rounds[1:]).statistic  # pyright: ignore[reportAttributeAccessIssue]
    assert 0.3 < alike < 0.6
    assert intervals.block(rounds) == int(np.ceil(4 * (2 * alike / (1 - alike**2)) ** (2 / 3)))
    assert intervals.block(np.arange(64.0)) == 64 // intervals.FEWEST_BLOCKS


def test_a_timing_is_that_of_rounds() -> None:
    """Rounds of 2, 4, 6, 8 and 10, with one call in each that waited a hundred times as long."""
    milliseconds = np.repeat([[4.0], [2.0], [8.0], [6.0], [10.0]], 5, axis=1)
    milliseconds[:, 3] *= 100
    found = timing.timing(milliseconds, 8, 0.95)
    assert (found["median"], found["calls"], found["rounds"]) == (6, 25, 5)
    assert found["p95"] == pytest.approx(760)  # at 22.8 of 24: between the third longest and the second
    assert found["pictures_per_second"] == pytest.approx(8 / 0.006)
    assert found["noisy"]
    assert 2 <= found["low"] < 6 < found["high"] <= 10
    assert 200 <= found["p95_low"] < found["p95"] <= found["p95_high"] <= 1000
    assert not timing.timing(np.full((5, 5), 6.0), 8, 0.95)["noisy"]


@pytest.mark.parametrize(("reach", "noisy"), [(0.049, False), (0.051, True)])
def test_an_interval_of_more_than_a_tenth_is_noisy(reach: float, noisy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "interval", lambda *_: (10 - 10 * reach, 10 + 10 * reach))
    assert timing.timing(np.full((5, 5), 10.0), 1, 0.95)["noisy"] == noisy


@pytest.mark.parametrize(("slope", "found"), [(0.01, True), (-0.01, True), (0.0, False)])
def test_a_drift_is_found_and_measured(slope: float, found: bool) -> None:
    """20 rounds that become 1 % of 100 slower each, between which others are drawn at random."""
    noise = np.random.default_rng(4).permutation(20) / 100
    drift = timing.drift(100 * (1 + slope * (np.arange(20) - 9.5)) + noise, 0.95)
    assert drift["found"] == found == (drift["p"] < 0.05)
    assert drift["share"] == pytest.approx(19 * slope, abs=0.003)
    assert timing.drift(np.ones(20), 0.95) == {"share": 0, "p": 1, "found": False}


def test_a_ratio_is_that_of_each_round() -> None:
    """One of 6 and one of 2 units, whatever a unit is in a round, and one call that waits."""
    units = np.array([1.0, 3.0, 1.0, 1.5])[:, None] * np.ones(5)
    units[2, 0] = 50
    assert timing.times_faster(2 * units, 6 * units, 0.95) == pytest.approx((3, 3, 3))


def test_each_round_has_every_file_in_an_order_of_its_own() -> None:
    rounds = list(turns.orders(["a", "b", "c"], 12))
    assert {tuple(sorted(order)) for order in rounds} == {("a", "b", "c")}
    assert len({tuple(order) for order in rounds}) > 3
    assert list(turns.orders(["a", "b", "c"], 12)) == rounds


def test_files_are_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files, three rounds and one that does not count."""
    asked: list[tuple[str, list[int]]] = []
    ask = turns.ask

    def noted(task: turns.Task, meter: Meter | None) -> tuple[turns.Told, float]:
        asked.append((Path(task.file).stem, list(task.calls)))
        return ask(task, meter)

    monkeypatch.setattr(turns, "ask", noted)
    monkeypatch.setattr(turns, "orders", lambda names, rounds: [names[::-1]] * rounds)
    paths = {name: file(tmp_path / f"{name}.onnx") for name in ("first", "second")}
    found = turns.measure(paths, PICTURES, [SINGLE, PAIR], SETTINGS)
    assert [name for name, _ in asked[:2]] == list(paths)
    assert [name for name, _ in asked[2:]] == ["second", "first"] * 3
    assert [calls for _, calls in asked[:2]] == [[turns.TRIED] * 2] * 2
    for name, one in found.items():
        [calls] = {tuple(calls) for given, calls in asked[2:] if given == name}
        assert [one.calls[cell].shape for cell in (SINGLE, PAIR)] == [(3, wanted) for wanted in calls]
        assert all((times > 0).all() for times in one.calls.values())
        assert one.load.shape == (3,)
        assert (one.load > 0).all()
        assert (one.peak_bytes > one.over_runtime_bytes).all()
        assert (one.over_runtime_bytes > 0).all()
        assert len(one.joules) == 0


def test_each_cell_gets_as_many_pictures_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(sessions, "clock", lambda _, pictures, calls: given.append(len(pictures)) or np.ones(calls))
    np.save(tmp_path / "pictures.npy", np.repeat(PICTURES, 4, axis=0))
    paths = str(file(tmp_path / "a.onnx")), str(tmp_path / "pictures.npy")
    told = worker.work(turns.Task(*paths, [SINGLE, PAIR], [3, 4], None))
    assert given == [1, 1, 2, 2]  # once to warm up
    assert [len(calls) for calls in told.calls] == [3, 4]


def test_calls_are_as_many_as_fit_into_the_time() -> None:
    told = turns.Told(1.0, 1, 1, [[2.0, 2.0, 9.0], [500.0]])
    settings = params.Benchmark(rounds=4, seconds_per_file=0.8, batches=(), confidence=0.95)
    assert turns._how_many(told, settings) == [50, turns.FEWEST]


def test_memory_is_that_of_the_process_and_not_of_who_started_it(tmp_path: Path) -> None:
    held = np.ones(60_000_000)  # 480 MB, which Linux counts for whoever is started now, in getrusage
    [found] = turns.measure({"a": file(tmp_path / "a.onnx")}, PICTURES, [SINGLE], SETTINGS).values()
    assert 20e6 < found.peak_bytes.max() < held.nbytes / 2


def test_joules_are_those_between_the_words(tmp_path: Path) -> None:
    """The counter moves by 7 while a reading lasts, and began anew in the second round."""
    readings = iter([100.0, 107.0, 500.0, 7.0, 20.0, 27.0])
    meter = Meter("counter", PAIR, lambda: next(readings))
    found = turns.measure({"a": file(tmp_path / "a.onnx")}, PICTURES, [SINGLE, PAIR], SETTINGS, meter)["a"]
    pictures = 2 * found.calls[PAIR].shape[1]
    assert found.joules.tolist() == [7 / pictures] * 2
    assert list(readings) == []


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"a\.onnx cannot be timed: its process was killed by SIGKILL"),
        ("import os; os.abort()", r"a\.onnx cannot be timed: its process was killed by SIGABRT"),
        ("raise MemoryError('all of it')", r"a\.onnx cannot be timed: its process ended with MemoryError: all of it"),
        ("raise SystemExit(7)", r"a\.onnx cannot be timed: its process ended with status 7"),
    ],
)
def test_a_process_that_dies_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str, message: str
) -> None:
    monkeypatch.setattr(turns, "WORKER", (sys.executable, "-c", worker))
    with pytest.raises(Refusal, match=message):
        turns.measure({"a": tmp_path / "a.onnx"}, PICTURES, [SINGLE], SETTINGS)


def test_a_file_that_answers_no_number_or_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(Refusal, match=r"^/\S*text\.onnx does not load"):
        turns.measure({"a": tmp_path / "text.onnx"}, PICTURES, [SINGLE], SETTINGS)
    with pytest.raises(Refusal, match=r"^/\S*nan\.onnx answers what is no number to 1 pictures at once, one_thread"):
        turns.measure({"a": file(tmp_path / "nan.onnx", no_number=True)}, PICTURES, [SINGLE], SETTINGS)


def test_who_stops_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> float:
        raise KeyboardInterrupt

    waits = "import time; print('begin', flush=True); time.sleep(30)"
    monkeypatch.setattr(turns, "WORKER", (sys.executable, "-c", waits))
    task = turns.Task("a.onnx", "pictures.npy", [SINGLE], [1], 0)
    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        turns.ask(task, Meter("counter", SINGLE, stop))
    left = set(psutil.Process().children()) - before
    psutil.wait_procs(left, timeout=5)
    assert not [one for one in left if one.is_running()]


def planted(unit: float, cells: list[Cell], metered: int = 0) -> Measured:
    calls = {cell: np.full((4, 5), unit * cell.batch) for cell in cells}
    rounds = np.array([3.0, 1.0, 2.0, 4.0])
    return Measured(rounds, 1000 * rounds, 100 * rounds, calls, 5 * rounds[:metered])


def test_metrics_are_by_way_and_batch() -> None:
    """On a machine with a GPU, and without."""
    cells = [Cell(way, batch) for way in ways.here(gpu=True) for batch in (1, 8)]
    files = describing.files({"teacher": planted(6, cells), "small": planted(2, cells)}, "teacher", 0.95)
    small = files["small"]
    for at in (small, small["batches"]["8"]):
        for way in ("one_thread", "all_threads", "gpu"):
            ratio = [at[way][f"times_faster_{what}"] for what in ("than_teacher", "low", "high")]
            assert ratio == [3, 3, 3]
            assert at[way]["pictures_per_second"] == 500
    assert (small["one_thread"]["median"], small["batches"]["8"]["gpu"]["median"]) == (2, 16)
    assert (small["load"]["median"], small["load"]["p95"], small["load"]["n"]) == (2.5, pytest.approx(3.85), 4)
    assert 1 <= small["load"]["low"] < 2.5 < small["load"]["high"] <= 4
    assert (small["memory"]["peak_bytes"], small["memory"]["over_runtime_bytes"]) == (2500, 250)
    assert small["joules"] is None
    without = [cell for cell in cells if cell.way in ways.here(gpu=False)]
    [found] = describing.files({"teacher": planted(6, without)}, "teacher", 0.95).values()
    assert found["gpu"] is found["batches"]["8"]["gpu"] is None
    assert found["all_threads"]["median"] == 6


def test_joules_have_an_interval_or_are_none() -> None:
    """The rounds of loading, five times as large; two of them are too few."""
    files = {str(metered): planted(2, [SINGLE], metered) for metered in (2, 4)}
    found = describing.files(files, "2", 0.95)
    load = found["4"]["load"]
    assert found["2"]["joules"] is None
    assert found["4"]["joules"] == {"per_picture": 12.5, "low": 5 * load["low"], "high": 5 * load["high"]}


def test_rounds_are_told_by_their_medians(tmp_path: Path) -> None:
    calls = {Cell(ways.ALL_THREADS, 8): np.array([[1.0, 2.0, 9.0], [4.0, 4.0, 4.5]])}
    none = np.zeros(2)
    describing.write_rounds(tmp_path / "rounds.csv", {"a": Measured(none, none, none, calls, none)})
    lines = ["file,batch,threads,round,milliseconds", "a,8,all_threads,0,2.000000", "a,8,all_threads,1,4.000000"]
    assert (tmp_path / "rounds.csv").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("offered", "used", "why"),
    [
        ([sessions.CPU], [sessions.CPU], "no CUDA provider in this ONNX Runtime"),
        ([sessions.CUDA, sessions.CPU], [sessions.CPU], "this ONNX Runtime has a CUDA provider that does not start"),
        ([sessions.CUDA, sessions.CPU], [sessions.CUDA, sessions.CPU], ""),
    ],
)
def test_a_gpu_is_one_that_runs_the_file(
    monkeypatch: pytest.MonkeyPatch, offered: list[str], used: list[str], why: str
) -> None:
    class Session:
        def get_providers(self) -> list[str]:
            return used

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(sessions, "session", lambda *_: Session())
    found = ways.without_gpu(Path("teacher.onnx"))
    assert found.startswith(why)
    assert bool(found) == bool(why)
    assert (ways.GPU in ways.here(gpu=not found)) == (not why)
