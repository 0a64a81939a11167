"""Grids against plain arithmetic: every code, the gradient of what is rounded and of the scale, zeros, signs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.core.params import WeightBits
from stages.core.quantized import grid
from stages.core.quantized.grid import Grid, Levels
from tests.integer_networks import WIDTHS

CODES: dict[WeightBits, list[int]] = {
    **{bits: list(range(1 - 2 ** (bits - 1), 2 ** (bits - 1))) for bits in range(3, 9)},
    2: [-2, -1, 0, 1],
    "ternary": [-1, 0, 1],
    1: [-1, 1],
}
SCALES = [0.3, 1.7, 0.05]
EVERY = [(str(bits), grid.of_weights(bits), 0) for bits in WIDTHS]
EVERY += [
    (f"flow of {bits}", grid.of_activations(bits), zero) for bits in (8, 4, 2) for zero in (0, 1, 2 ** (bits - 1))
]


def of(levels: Levels, scale: list[float] | float, zero: float = 0.0) -> Grid:
    one = Grid(levels, 8, torch.tensor(scale, dtype=torch.float64))
    one.zero.fill_(zero)
    return one


def values(levels: Levels, zero: float) -> Tensor:
    """[3, 400], within the range of each scale and beyond it."""
    torch.manual_seed(0)
    reach = max(abs(levels.lowest - zero), abs(levels.highest - zero))
    return torch.randn(3, 400, dtype=torch.float64) * reach * torch.tensor(SCALES)[:, None]


def nearest(given: np.ndarray, scale: np.ndarray, codes: np.ndarray, zero: float) -> np.ndarray:
    """Of all numbers that there are codes for."""
    numbers = (codes - zero) * scale[:, None]
    return np.stack([row[np.abs(one[:, None] - row).argmin(1)] for one, row in zip(given, numbers, strict=True)])


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_codes_of_each_width(bits: WeightBits) -> None:
    levels = grid.of_weights(bits)
    assert list(range(levels.lowest, levels.highest + 1, levels.step)) == CODES[bits]
    assert len(levels) == len(CODES[bits])
    assert -(-len(levels) // 2) <= 2 ** (8 if bits == "ternary" else bits - 1)


@pytest.mark.parametrize(("_name", "levels", "zero"), EVERY, ids=[name for name, *_ in EVERY])
def test_a_number_becomes_the_nearest(_name: str, levels: Levels, zero: int) -> None:
    given = values(levels, zero)
    codes = np.arange(levels.lowest, levels.highest + 1, levels.step)
    one = of(levels, SCALES, zero)
    expected = nearest(given.numpy(), np.array(SCALES), codes, zero)
    np.testing.assert_allclose(one(given)[0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.codes(given).numpy(), expected / np.array(SCALES)[:, None] + zero, atol=1e-9)


def surrogate(given: Tensor, scale: Tensor, levels: Levels, zero: float) -> Callable[[Tensor, Tensor], Tensor]:
    """What rounding adds at this point is held: what is left is as smooth as the clipping lets it be."""
    codes = torch.arange(levels.lowest, levels.highest + 1, levels.step, dtype=torch.float64)
    place = (given / scale[:, None] + zero).clamp(levels.lowest, levels.highest)
    added = codes[(place[..., None] - codes).abs().argmin(-1)] - place

    def answer(given: Tensor, scale: Tensor) -> Tensor:
        place = (given / scale[:, None] + zero).clamp(levels.lowest, levels.highest)
        return (place + added - zero) * scale[:, None]

    return answer


@pytest.mark.parametrize(("_name", "levels", "zero"), EVERY, ids=[name for name, *_ in EVERY])
def test_gradients_are_those_of_learned_step_sizes(_name: str, levels: Levels, zero: int) -> None:
    """Esser et al. 2020, equations 3 and 5, and the slope of the surrogate by finite differences."""
    given, scale = values(levels, zero).requires_grad_(), torch.tensor(SCALES, dtype=torch.float64)
    one, weight = of(levels, SCALES, zero), torch.randn(3, 400, dtype=torch.float64)
    answers = one(given)[0]
    (answers * weight).sum().backward()
    place = given.detach() / scale[:, None] + zero
    within = (place > levels.lowest) & (place < levels.highest)
    assert 0.1 < within.double().mean() < 0.9
    codes = answers.detach() / scale[:, None]
    by_hand = torch.where(within, codes - given.detach() / scale[:, None], codes)
    assert given.grad is not None
    assert one.growth.grad is not None
    torch.testing.assert_close(given.grad, weight * within)
    torch.testing.assert_close(one.growth.grad, scale * (weight * by_hand).sum(1))

    held, step = surrogate(given.detach(), scale, levels, zero), 1e-7
    slopes = (held(given.detach() + step, scale) - held(given.detach() - step, scale)) / (2 * step)
    torch.testing.assert_close(given.grad, weight * slopes, rtol=1e-5, atol=1e-5)
    slopes = (held(given.detach(), scale + step) - held(given.detach(), scale - step)) / (2 * step)
    torch.testing.assert_close(one.growth.grad, scale * (weight * slopes).sum(1), rtol=1e-5, atol=1e-3)


def test_one_scale_for_all_learns_from_all() -> None:
    given = values(grid.of_weights(4), 0)
    one, each = of(grid.of_weights(4), 0.3), of(grid.of_weights(4), [0.3] * 3)
    for grids in (one, each):
        grids(given)[0].square().sum().backward()
    assert one.growth.grad is not None
    assert each.growth.grad is not None
    torch.testing.assert_close(one.growth.grad, each.growth.grad.sum())


def test_one_bit_leaves_zeros_and_knows_no_other() -> None:
    given = torch.tensor([[0.0, 1e-9, -1e-9, 5.0, -0.0, -3.0]])
    answers = of(grid.of_weights(1), [0.5])(given)[0]
    assert answers.tolist() == [[0.0, 0.5, -0.5, 0.5, 0.0, -0.5]]


def test_a_grid_that_is_off_changes_nothing() -> None:
    one = of(grid.of_activations(2), 1.0)
    given = torch.randn(2, 5)
    one.on = False
    assert torch.equal(one(given)[0], given)


def test_what_a_scale_learnt_settles() -> None:
    """A step of Adam is a share of any scale, however small; afterwards it answers the same, with nothing left over."""
    one, given = of(grid.of_weights(4), SCALES), values(grid.of_weights(4), 0)
    optimizer = torch.optim.Adam(one.parameters(), lr=0.01)
    one(given)[0].square().sum().backward()
    optimizer.step()
    learnt = one(given)[0].detach()
    network = nn.ModuleList([one])
    grid.settle(network)
    torch.testing.assert_close(one.scale / torch.tensor(SCALES), torch.full((3,), np.exp(-0.01)).double())
    assert one.growth.abs().max() == 0
    torch.testing.assert_close(one(given)[0], learnt)
