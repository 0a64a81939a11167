"""Ranges and scales against NumPy, SciPy, ONNX Runtime and every range that could be tried."""

import itertools
import math

import numpy as np
import pytest
import torch
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy import stats
from torch import Tensor
from torch.nn import functional

from stages.core import params
from stages.core.quantized import grid
from stages.core.quantized.grid import Levels
from stages.core.quantizing import ranges
from stages.core.quantizing.ranges import Histogram
from stages.core.running.errors import Refusal

EXTREMES = params.Extremes(name="minmax")
SQUARES = params.SquaredError(name="mse")
ENTROPY = params.Entropy(name="entropy")


def percentile(share: float) -> params.Percentile:
    return params.Percentile(name="percentile", percentile=share)


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


FLOWS = {
    "rectified": normal(20000).relu() * 3,
    "bent": functional.gelu(normal(20000) * 2),
    "signed": normal(20000) - 0.5,
    "long-tailed": normal(20000).pow(3),
    "negative": -normal(20000).abs() - 1,
    "far": torch.cat([normal(20000).relu(), torch.tensor([300.0])]),
    "far above": torch.cat([normal(20000), torch.tensor([25.0])]),
    "far below": torch.cat([normal(20000), torch.tensor([-25.0])]),
}


def seen(values: Tensor, parts: int = 7) -> Histogram:
    histogram = Histogram()
    for part in values.chunk(parts):
        histogram.add(part)
    return histogram


def find(settings: params.Range, values: Tensor, levels: int = 256) -> tuple[float, float]:
    low, high = ranges.RANGES[settings.name](settings, seen(values), levels)
    assert low <= 0 <= high
    return low, high


@pytest.mark.parametrize("name", FLOWS)
def test_a_histogram_counts_as_numpy_does(name: str) -> None:
    values = FLOWS[name]
    histogram = seen(values)
    edges = np.linspace(-histogram.limit, histogram.limit, 2 * ranges.HALF + 1)
    taken = values[values != 0].double().numpy()
    assert np.array_equal(histogram.counts, np.histogram(taken, edges)[0])
    assert histogram.zeros == int((values == 0).sum())
    assert histogram.limit / 2 <= float(values.abs().max()) < histogram.limit


def test_what_came_first_does_not_matter() -> None:
    small, large = normal(1000) * 1e-3, normal(1000) * 1e3
    one, other = seen(torch.cat([small, large]), 2), seen(torch.cat([large, small]), 2)
    assert one.limit == other.limit > 1e3
    assert np.array_equal(one.counts, other.counts)
    assert one.counts.sum() == 2000


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(broken: float) -> None:
    with pytest.raises(Refusal, match=r"not finite: look at the calibration pictures"):
        Histogram().add(torch.tensor([1.0, broken, 2.0]))


@pytest.mark.parametrize("name", FLOWS)
def test_extremes_are_exact_and_hold_zero(name: str) -> None:
    values = FLOWS[name]
    assert find(EXTREMES, values) == (min(0.0, float(values.min())), max(0.0, float(values.max())))


@pytest.mark.parametrize("share", [51.0, 90.0, 99.9, 99.999])
@pytest.mark.parametrize("name", FLOWS)
def test_percentiles_are_those_of_numpy(name: str, share: float) -> None:
    values = FLOWS[name]
    low, high = find(percentile(share), values)
    width = seen(values).width
    assert low == pytest.approx(min(0.0, np.percentile(values.double(), 100 - share)), abs=width)
    assert high == pytest.approx(max(0.0, np.percentile(values.double(), share)), abs=width)


def missed(values: Tensor, low: float, high: float, levels: int) -> float:
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    return float(torch.fake_quantize_per_tensor_affine(values, step, zero, 0, levels - 1).sub(values).square().mean())


@pytest.mark.parametrize("levels", [4, 16, 256])
@pytest.mark.parametrize("name", FLOWS)
def test_no_range_errs_much_less_in_squares(name: str, levels: int) -> None:
    values = FLOWS[name][-4000:]
    low, high = find(SQUARES, values, levels)
    lows, highs = (np.linspace(0, end, 41) for end in find(EXTREMES, values))
    tried = [(a, b) for a, b in itertools.product(np.unique(lows), np.unique(highs)) if a < b]
    assert missed(values, low, high, levels) <= 1.03 * min(missed(values, a, b, levels) for a, b in tried)


def told_by_hand(counts: list[int], start: int, stop: int, levels: int) -> float:
    """Migacz 2017, as on the slides; the bins of a level are as even as can be."""
    reference = [float(count) for count in counts[start:stop]]
    reference[0] += sum(counts[:start])
    reference[-1] += sum(counts[stop:])
    candidate = [0.0] * len(reference)
    for level in range(levels):
        own = [place for place in range(len(reference)) if place * levels // len(reference) == level]
        filled = [place for place in own if reference[place]]
        for place in filled:
            candidate[place] = sum(counts[start + each] for each in own) / len(filled)
    return float(stats.entropy(reference, candidate))


@pytest.mark.parametrize(("start", "stop"), [(0, 60), (20, 40), (10, 50), (13, 29), (24, 36)])
def test_the_divergence_is_that_of_scipy(start: int, stop: int) -> None:
    counts = np.histogram(normal(500), 60, (-3, 3))[0]
    levels = (stop - start) // 4
    by_hand = told_by_hand(counts.tolist(), start, stop, levels)
    assert ranges.divergence(counts, start, stop, levels) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("name", ["signed", "bent", "rectified", "long-tailed"])
def test_no_range_tells_a_distribution_much_better(name: str) -> None:
    """Every reach is tried."""
    values, levels = FLOWS[name], 64
    low, high = find(ENTROPY, values, levels)
    end = max(-low, high)
    histogram = seen(values)
    bins = histogram.counts.reshape(-1, ranges.COARSE).sum(1)
    width, middle = histogram.width * ranges.COARSE, len(bins) // 2
    first, last = bins.nonzero()[0][[0, -1]]

    def divergence(reach: int) -> float:
        return ranges.divergence(bins, max(middle - reach, first), min(middle + reach, last + 1), levels)

    every = [divergence(reach) for reach in range(levels, middle)]
    assert divergence(round(end / width)) <= 1.1 * min(every)


@pytest.mark.parametrize("levels", [31, 63])
def test_of_one_histogram_the_divergence_chooses_what_onnxruntime_does(levels: int) -> None:
    """As near as its rounding to integers, smoothing and longer last level let it."""
    values, bins = normal(200000).pow(3).numpy(), 655
    end = np.abs(values).max() * 1.0001
    counts, edges = np.histogram(values, np.linspace(-end, end, bins + 1).astype(np.float32))
    collector = HistogramCollector("entropy", True, bins, levels, 99.9, "same")
    theirs = collector.get_entropy_threshold((counts, edges, -end, end, end), levels)
    middle = bins // 2
    reach = min(
        range(levels // 2, middle + 1),
        key=lambda reach: ranges.divergence(counts, middle - reach, middle + reach + 1, levels),
    )
    assert edges[middle + reach + 1] == pytest.approx(float(theirs[1]), rel=0.03)
    assert float(theirs[1]) < 0.2 * end


def test_a_range_that_holds_nothing_is_not_chosen() -> None:
    low, high = find(ENTROPY, torch.cat([normal(5000) - 20, normal(5000) + 20]))
    assert low < -20
    assert high > 20


@pytest.mark.parametrize("settings", [EXTREMES, percentile(99.9), SQUARES, ENTROPY], ids=lambda settings: settings.name)
def test_what_is_silent_has_no_range(settings: params.Range) -> None:
    assert find(settings, torch.zeros(100)) == (0, 0)


@pytest.mark.parametrize("settings", [percentile(99.0), SQUARES, ENTROPY], ids=lambda settings: settings.name)
@pytest.mark.parametrize("name", FLOWS)
def test_ranges_stay_within_what_was_seen(name: str, settings: params.Range) -> None:
    low, high = find(settings, FLOWS[name], 16)
    lowest, highest = find(EXTREMES, FLOWS[name])
    assert lowest <= low < high <= highest


def codes(weights: Tensor, scale: Tensor, levels: Levels) -> Tensor:
    allowed = torch.arange(levels.lowest, levels.highest + 1, levels.step).double()
    return allowed[(weights.unsqueeze(-1) / scale - allowed).abs().argmin(-1)]


def squares(row: Tensor, scale: float, levels: Levels) -> float:
    return float((codes(row, torch.tensor(scale), levels) * scale - row).square().sum())


def least(row: Tensor, levels: Levels) -> float:
    """Of two thousand scales."""
    scales = torch.linspace(1e-3, 1.2, 2000, dtype=torch.float64) * row.abs().max()
    return min(squares(row, float(scale), levels) for scale in scales)


WEIGHTS = normal(6 * 40).double().view(6, 40) * torch.tensor([[0.1], [1], [10], [1], [1], [0.01]])
WEIGHTS[3, 0] = 8  # far beyond the others


@pytest.mark.parametrize("bits", [1, "ternary", 2, 3, 4])
def test_no_scale_errs_much_less(bits: params.WeightBits) -> None:
    levels = grid.of_weights(bits)
    found = ranges.steps(WEIGHTS, levels, "mse", "channel")
    slack = 1.0001 if len(levels) <= 3 and bits != 2 else 1.03
    for row, scale in zip(WEIGHTS, found.tolist(), strict=True):
        assert squares(row, scale, levels) <= slack * least(row, levels)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_extremes_fit_exactly(bits: int) -> None:
    levels = grid.of_weights(bits)
    places = WEIGHTS / ranges.steps(WEIGHTS, levels, "extremes", "channel").unsqueeze(1)
    assert torch.allclose(
        torch.maximum(places.amax(1) / levels.highest, places.amin(1) / levels.lowest), torch.ones(6).double()
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_by_squares_is_never_worse_than_by_extremes(bits: int) -> None:
    levels = grid.of_weights(bits)
    by_squares, by_extremes = (ranges.steps(WEIGHTS, levels, by, "channel").tolist() for by in ("mse", "extremes"))
    for row, one, other in zip(WEIGHTS, by_squares, by_extremes, strict=True):
        assert squares(row, one, levels) <= squares(row, other, levels) * (1 + 1e-9)


@pytest.mark.parametrize("bits", [1, "ternary", 4])
def test_a_tensor_has_the_scale_of_all_its_weights(bits: params.WeightBits) -> None:
    levels = grid.of_weights(bits)
    flat = ranges.steps(WEIGHTS.reshape(1, -1), levels, "mse", "channel")
    assert torch.equal(ranges.steps(WEIGHTS, levels, "mse", "tensor"), flat)
    assert flat.shape == (1,)


def test_two_levels_lie_where_the_weights_that_are_left_lie() -> None:
    row = torch.tensor([[0.5, -1.5, 0.0, 4.0, 0.0]])
    assert ranges.steps(row, grid.of_weights(1), "extremes", "channel").tolist() == [2.0]


@pytest.mark.parametrize("bits", [1, "ternary", 2, 8])
@pytest.mark.parametrize("by", ["extremes", "mse"])
def test_a_channel_of_zeros_has_a_scale(bits: params.WeightBits, by: str) -> None:
    found = ranges.steps(torch.zeros(2, 3), grid.of_weights(bits), by, "channel")  # pyright: ignore[reportArgumentType]
    assert (found > 0).all()
    assert (found < 1e-6).all()
