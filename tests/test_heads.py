"""Attention without some heads, or some dimensions of each, answers as if they were silent; the right ones go."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from timm.layers.config import set_fused_attn, use_fused_attn
from torch import Tensor, nn

from stages.core import params
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families
from stages.core.networks.artifact import Card, Model
from stages.core.pruning import heads, worth
from stages.core.shipping import running, writing

SIZE = 32
FACTS = Facts("small", tuple("abcd"), SIZE, (0.5,) * 3, (0.25,) * 3, "crop")
TRIPLE, SEXTUPLE = {"depth": 2, "embed_dim": 48, "num_heads": 3}, {"depth": 2, "embed_dim": 48, "num_heads": 6}


def timm(model: str, **options: bool | int | float | str) -> params.Timm:
    return params.Timm(name="timm", model=model, options=options)


VIT = timm("vit_tiny_patch16_224", patch_size=8, **TRIPLE)
SIX = timm("vit_tiny_patch16_224", patch_size=16, **SEXTUPLE)
BOTH = {
    "vit": VIT,
    "no class token": timm("vit_tiny_patch16_224", patch_size=8, class_token=False, global_pool="avg", **TRIPLE),
    "no bias": timm("vit_tiny_patch16_224", patch_size=8, qkv_bias=False, **TRIPLE),
    "distilled": timm("deit_tiny_distilled_patch16_224", **TRIPLE),
    "registers": timm("vit_small_patch14_reg4_dinov2", patch_size=8, **TRIPLE),
    "windows": timm("swin_tiny_patch4_window7_224", embed_dim=24, window_size=4, patch_size=2),
}
HEADS_ONLY = {
    "rotated": timm("vit_small_patch16_rope_224", **TRIPLE),
    "normalised": timm("vit_tiny_patch16_224", qk_norm=True, **TRIPLE),
}
NEITHER = {
    "normalised over heads": timm("vit_tiny_patch16_224", scale_attn_norm=True, **TRIPLE),
    "code counts": timm("beit_base_patch16_224", **TRIPLE),
    "code counts, rotated": timm("eva02_tiny_patch14_224", patch_size=8, **TRIPLE),
    "one head": timm("vit_tiny_patch16_224", depth=1, embed_dim=8, num_heads=1, qk_norm=True),
}
CASES = [
    *(pytest.param(kind, one, True, id=f"{kind} {name}") for kind in heads.KINDS for name, one in BOTH.items()),
    *(pytest.param("heads", one, True, id=f"heads {name}") for name, one in HEADS_ONLY.items()),
    *(pytest.param(kind, VIT, False, id=f"{kind} not fused") for kind in heads.KINDS),
]


def alive(network: params.Timm) -> Any:
    """As after training: nothing is zero, and no two are the same."""
    torch.manual_seed(0)
    module = families.build(network, len(FACTS.classes), SIZE)
    for parameter in module.parameters():
        if parameter.ndim < 2:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return module.eval()


def wanted(settings: params.Params, kind: str, **changes: object) -> params.Prune:
    small: dict[str, object] = {"importance": params.Magnitude(name="l2"), "ranking": "layerwise", "round_to": 1}
    return settings.prune.model_copy(update={"attention": kind} | small | changes)


def attentions(network: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in network.named_modules() if name.endswith("attn")}


def rows_of(attention: Any, part: int, head: int) -> Tensor:
    """Views of the rows of one head's queries, keys or values."""
    size = attention.proj.in_features // attention.num_heads
    start = part * attention.proj.in_features + head * size
    return torch.arange(start, start + size)


def fade(attention: Any, part: int, head: int, dimensions: list[int], factor: float) -> None:
    rows = rows_of(attention, part, head)[dimensions]
    with torch.no_grad():
        for tensor in (attention.qkv.weight, attention.qkv.bias):
            if tensor is not None:
                tensor[rows] *= factor
        if part == 2:
            attention.proj.weight[:, rows - 2 * attention.proj.in_features] *= factor


def fade_some(attention: Any, kind: str, factor: float) -> None:
    """The first head, or three dimensions of each, queries with keys, and other ones of values."""
    size = attention.proj.in_features // attention.num_heads
    if kind == "heads":
        for part in range(3):
            fade(attention, part, 0, list(range(size)), factor)
    else:
        for head in range(attention.num_heads):
            for part, first in ((0, head % 5), (1, head % 5), (2, (head + 1) % 5)):
                fade(attention, part, head, [first, first + 1, size - 1], factor)


@contextmanager
def fused(enable: bool) -> Iterator[None]:
    before = use_fused_attn()
    set_fused_attn(enable)
    try:
        yield
    finally:
        set_fused_attn(bool(before))


@pytest.mark.parametrize(("kind", "network", "is_fused"), CASES)
@torch.no_grad()
def test_cut_is_silent_also_from_the_disk(
    settings: params.Params, tmp_path: Path, kind: str, network: params.Timm, is_fused: bool
) -> None:
    """Small ones are the least; the reference has zeros in their place. Either code of attention answers the same."""
    with fused(is_fused):
        dense = alive(network)
    names = list(attentions(dense))
    assert heads.prunable(dense, SIZE, 0, kind) == names
    for attention in attentions(dense).values():
        fade_some(attention, kind, 1e-3)
    narrow, silent = copy.deepcopy(dense), copy.deepcopy(dense)
    for attention in attentions(silent).values():
        fade_some(attention, kind, 0.0)
    before = heads.counts(dense)
    gone = {"heads": (1, 0), "dimensions": (0, 3)}[kind]
    shares = {name: 1 / one["heads"] if kind == "heads" else 3 / one["dimension"] for name, one in before.items()}
    heads.cut(narrow, names, shares, wanted(settings, kind))
    left = {name: (one["heads"] - gone[0], one["dimension"] - gone[1]) for name, one in before.items()}
    assert {name: (one["heads"], one["dimension"]) for name, one in heads.counts(narrow).items()} == left

    artifact.save_float(tmp_path / "narrow", narrow, network, FACTS)
    with fused(is_fused):
        loaded = artifact.load(tmp_path / "narrow").network
    with fused(not is_fused):
        other = artifact.load(tmp_path / "narrow").network
    for batch in (1, 2, 5):
        pictures = torch.randn(batch, 3, SIZE, SIZE)
        assert torch.equal(loaded(pictures), narrow(pictures))
        for one in (narrow, other):
            torch.testing.assert_close(one(pictures), silent(pictures), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", heads.KINDS)
@torch.no_grad()
def test_the_file_answers_alike(settings: params.Params, tmp_path: Path, kind: str) -> None:
    network = alive(VIT)
    heads.cut(network, list(attentions(network)), 0.4, wanted(settings, kind))
    stored = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    seen = (torch.from_numpy(stored).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    answers = network(seen)
    writing.write(Model(network, Card(VIT, FACTS)), tmp_path / "model.onnx", 18, {})
    np.testing.assert_allclose(running.logits(tmp_path / "model.onnx", stored), answers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "free"), [*((name, ["heads"]) for name in HEADS_ONLY), *((n, []) for n in NEITHER)])
def test_attention_stays_where_cutting_is_not_silencing(name: str, free: list[str]) -> None:
    network = alive((HEADS_ONLY | NEITHER)[name])
    assert [kind for kind in heads.KINDS if heads.prunable(network, SIZE, 0, kind)] == free


class Odd(nn.Module):
    """Attention that breaks nowhere without a head or a dimension, and answers otherwise."""

    def __init__(self, weigh: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads, self.weigh = nn.Linear(3, 48), nn.Linear(16, 4), 4, weigh

    def forward(self, pictures: Tensor) -> Tensor:
        tokens = pictures.flatten(2)[..., :6].transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.weigh(q @ k.transpose(-2, -1)) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2)).mean(1)


@pytest.mark.parametrize(
    ("weigh", "free"),
    [
        (lambda products: products.softmax(-1), ["heads"]),
        (lambda products: products.softmax(1), []),
        (lambda products: products.softmax(-1) / products.shape[1], []),
        (lambda products: products.softmax(-1) / (1 + (products.shape[1] == 1)), []),
        (lambda products: products.softmax(-1) / (products.shape[1] if len(products) == 1 else 1), []),
    ],
    ids=["scaled by nothing", "heads compete", "mean over heads", "one head is another thing", "one picture is, too"],
)
def test_attention_stays_where_answers_would_differ(weigh: Callable[[Tensor], Tensor], free: list[str]) -> None:
    """Without the division by the root of the dimension, queries that are scaled for it are wrong."""
    network = nn.Sequential(Odd(weigh))
    assert [kind for kind in heads.KINDS if heads.prunable(network, SIZE, 0, kind) == ["0"]] == free


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Odd(lambda products: products.softmax(1)), Odd(lambda products: products.softmax(-1))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.one(pictures) + self.other(pictures)


def test_one_that_must_stay_does_not_hold_the_others() -> None:
    assert heads.prunable(Pair(), SIZE, 0, "heads") == ["other"]


def test_what_is_shaped_otherwise_is_no_attention() -> None:
    """Fewer keys than queries, as where heads share them; heads that do not divide the width."""
    shared, uneven = Odd(lambda products: products), Odd(lambda products: products)
    shared.qkv, uneven.num_heads = nn.Linear(3, 32), 3
    assert heads.counts(nn.Sequential(shared, uneven, Odd(lambda products: products))) == {
        "2": {"heads": 4, "dimension": 4}
    }


GIVEN: dict[str, params.Importance] = {
    "l1": params.Magnitude(name="l1"),
    "l2": params.Magnitude(name="l2"),
    "group_norm": params.GroupNorm(name="group_norm"),
    "lamp": params.LAMP(name="lamp"),
    "fpgm": params.GeometricMedian(name="fpgm"),
    "taylor": params.Taylor(name="taylor", pictures=4),
    "hessian": params.Hessian(name="hessian", pictures=4),
}


def felt(network: nn.Module) -> Callable[[], Tensor]:
    """A loss of a few pictures."""
    pictures = torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64)
    return lambda: nn.functional.cross_entropy(network(pictures), torch.arange(4))


def squared(network: Any) -> None:
    for parameter in network.parameters():
        parameter.grad = parameter.grad.square()


def by_hand(
    name: str, attention: Any, loss: Callable[[], Tensor], parts: list[int], units: list[Tensor]
) -> list[float]:
    """What each unit is worth, row by row; `units` are rows of one part."""
    width = attention.proj.in_features

    def pieces(unit: Tensor, with_columns: bool) -> Iterator[tuple[nn.Parameter, Any]]:
        for part in parts:
            yield attention.qkv.weight, unit + part * width
            yield attention.qkv.bias, unit + part * width
        if with_columns and 2 in parts:
            yield attention.proj.weight, (slice(None), unit)

    def numbers(unit: Tensor, with_columns: bool) -> Tensor:
        return torch.cat([tensor.detach()[place].flatten() for tensor, place in pieces(unit, with_columns)])

    def faded(unit: Tensor, factor: float) -> float:
        with torch.no_grad():
            for tensor, place in pieces(unit, True):
                tensor[place] *= factor
            told = loss().item()
            for tensor, place in pieces(unit, True):
                tensor[place] /= factor
        return told

    def curvature(unit: Tensor) -> float:
        each = [(tensor.detach()[place], cast(Tensor, tensor.grad)[place]) for tensor, place in pieces(unit, True)]
        return sum((weight**2 * gradient).sum().item() for weight, gradient in each)

    formulas: dict[str, Callable[[Tensor], float]] = {
        "l1": lambda unit: numbers(unit, False).abs().sum().item(),
        "l2": lambda unit: numbers(unit, False).square().sum().item(),
        "group_norm": lambda unit: numbers(unit, True).square().sum().item(),
        "lamp": lambda unit: numbers(unit, True).square().sum().item(),
        "fpgm": lambda unit: sum((numbers(unit, False) - numbers(other, False)).norm().item() for other in units),
        "taylor": lambda unit: abs(faded(unit, 1 + 1e-5) - faded(unit, 1 - 1e-5)),
        "hessian": curvature,
    }
    return [formulas[name](unit) for unit in units]


def least(scores: list[float], count: int) -> set[int]:
    return set(np.argsort(scores)[:count].tolist())


@pytest.mark.parametrize("name", GIVEN)
def test_the_least_go_by_each_importance(settings: params.Params, name: str) -> None:
    """Heads, then dimensions, against what is summed by hand; taylor against finite differences."""
    dense = alive(SIX).double()
    loss = felt(dense)
    loss().backward()
    if name == "hessian":
        squared(dense)
    attention = attentions(dense)["blocks.0.attn"]
    size = attention.head_dim
    units = [rows_of(attention, 0, head) for head in range(attention.num_heads)]
    keys = attention.qkv.weight.detach()[attention.attn_dim : 2 * attention.attn_dim]
    values = attention.qkv.weight.detach()[2 * attention.attn_dim :]

    narrow = copied(dense)
    heads.cut(narrow, list(attentions(dense)), 0.5, wanted(settings, "heads", importance=GIVEN[name]))
    gone = least(by_hand(name, attention, loss, [0, 1, 2], units), 3)
    assert places(narrow, 1, keys) == [row for row in range(len(keys)) if row // size not in gone]

    narrow = copied(dense)
    heads.cut(narrow, list(attentions(dense)), 0.25, wanted(settings, "dimensions", importance=GIVEN[name]))
    singles = [row[None] for row in torch.arange(attention.attn_dim)]
    for part, rows, parts in ((1, keys, [0, 1]), (2, values, [2])):
        scores = by_hand(name, attention, loss, parts, singles)
        gone = {start + row for start in range(0, len(rows), size) for row in least(scores[start : start + size], 2)}
        assert places(narrow, part, rows) == [row for row in range(len(rows)) if row not in gone]


def copied(network: Any) -> Any:
    """With its gradients, which a copy does not have."""
    other = copy.deepcopy(network)
    for one, theirs in zip(other.parameters(), network.parameters(), strict=True):
        one.grad = theirs.grad.clone()
    return other


def places(network: nn.Module, part: int, rows: Tensor) -> list[int]:
    """Which of these rows are left in the first attention."""
    kept = attentions(network)["blocks.0.attn"].qkv.weight.detach().unflatten(0, (3, -1))[part]
    return [row for row in range(len(rows)) if (kept == rows[row]).all(1).any()]


def test_gradients_are_cut_along_and_who_learns_still_does(settings: params.Params) -> None:
    dense = alive(SIX)
    for parameter in dense.parameters():
        parameter.grad = parameter.detach().clone()
    dense.blocks[0].attn.qkv.weight.requires_grad_(False)
    heads.cut(dense, list(attentions(dense)), 0.5, wanted(settings, "heads"))
    for parameter in dense.parameters():
        assert torch.equal(parameter.grad, parameter)
    held = [name for name, parameter in dense.named_parameters() if not parameter.requires_grad]
    assert held == ["blocks.0.attn.qkv.weight"]


def silenced(network: nn.Module, name: str, which: list[int]) -> None:
    attention = attentions(network)[name]
    for head in which:
        for part in range(3):
            fade(attention, part, head, list(range(attention.head_dim)), 0.0)


@pytest.mark.parametrize("kind", heads.KINDS)
@pytest.mark.parametrize("name", [name for name in GIVEN if name != "fpgm"])
def test_silent_ones_go_first_wherever_they_are(settings: params.Params, name: str, kind: str) -> None:
    """All of one attention's; ranked against each other, the other attention loses none, and no answer changes."""
    dense = alive(SIX).double()
    for part, head, dimension in [(part, head, d) for part in range(3) for head in range(6) for d in range(8)]:
        if head in (1, 4) if kind == "heads" else dimension in (2, 5):
            fade(attentions(dense)["blocks.1.attn"], part, head, [dimension], 0.0)
    pictures = torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64)
    before = dense(pictures)
    felt(dense)().backward()
    if name == "hessian":
        squared(dense)
    given = wanted(settings, kind, importance=GIVEN[name], ranking="global")
    heads.cut(dense, list(attentions(dense)), 2 / (12 if kind == "heads" else 16), given)
    left = {"heads": (4, 8), "dimensions": (6, 6)}[kind]
    assert [tuple(one.values()) for one in heads.counts(dense).values()] == [(6, 8), left]
    torch.testing.assert_close(dense(pictures), before)


def weighed(factors: dict[str, list[float]]) -> Any:
    """Each head of an attention is the same but for a factor."""
    network = alive(SIX)
    for name, its in factors.items():
        attention = attentions(network)[name]
        with torch.no_grad():
            for tensor in (attention.qkv.weight, attention.qkv.bias):
                tensor.copy_(tensor.unflatten(0, (3, 6, 8))[:, :1].expand(3, 6, 8, *tensor.shape[1:]).flatten(0, 2))
            attention.proj.weight.copy_(attention.proj.weight[:, :8].repeat(1, 6))
        for part, (head, factor) in [(part, pair) for part in range(3) for pair in enumerate(its)]:
            fade(attention, part, head, list(range(8)), factor)
    return network


@pytest.mark.parametrize(("ranking", "left"), [("global", [1, 5]), ("isomorphic", [1, 5]), ("layerwise", [3, 3])])
def test_rankings(settings: params.Params, ranking: str, left: list[int]) -> None:
    """Shares of the mean are 0.13, 0.27, 0.4, 0.53, 0.67, 4 in one, and 0.67, 0.73 and more in the other."""
    network = weighed({"blocks.0.attn": [2, 3, 1, 4, 5, 30], "blocks.1.attn": [1, 1.1, 1.2, 1.3, 2, 2.4]})
    heads.cut(network, list(attentions(network)), 0.5, wanted(settings, "heads", ranking=ranking))
    assert [one["heads"] for one in heads.counts(network).values()] == left


def test_lamp_is_the_share_of_what_remains(settings: params.Params) -> None:
    """Of squares: 0.10, 0.14, 0.19, 0.28 in one and 1/21, 4/20, 4/16 in the other; shares of the mean say [2, 5]."""
    network = weighed({"blocks.0.attn": [0.9, 1, 1.1, 1.2, 1.3, 1.4], "blocks.1.attn": [1, 2, 2, 2, 2, 2]})
    given = wanted(settings, "heads", ranking="global", importance=GIVEN["lamp"])
    heads.cut(network, list(attentions(network)), 5 / 12, given)
    assert [one["heads"] for one in heads.counts(network).values()] == [3, 4]


@pytest.mark.parametrize("name", ["l2", "lamp"])
def test_all_of_a_silent_attention_go_but_one(settings: params.Params, name: str) -> None:
    network = weighed({"blocks.0.attn": [1, 2, 3, 4, 5, 6], "blocks.1.attn": [0, 0, 0, 0, 0, 0]})
    given = wanted(settings, "heads", ranking="global", importance=GIVEN[name])
    heads.cut(network, list(attentions(network)), 5 / 12, given)
    assert [one["heads"] for one in heads.counts(network).values()] == [6, 1]


def test_dimensions_are_worth_what_they_are_to_all_heads(settings: params.Params) -> None:
    """Two attentions are the same, but for two faint dimensions of values, in all heads but the first."""
    network = alive(SIX)
    first, second = attentions(network).values()
    second.load_state_dict(first.state_dict())
    for head in range(1, 6):
        fade(second, 2, head, [2, 5], 1e-3)
    heads.cut(network, list(attentions(network)), 2 / 16, wanted(settings, "dimensions", ranking="global"))
    assert [one["dimension"] for one in heads.counts(network).values()] == [8, 6]


def test_isomorphic_attentions_are_those_of_one_shape(settings: params.Params) -> None:
    """Stages of four widths: ranked by shape, each stage goes as it would alone."""
    dense = alive(BOTH["windows"])
    names = list(attentions(dense))
    together, apart = copy.deepcopy(dense), copy.deepcopy(dense)
    heads.cut(together, names, 0.4, wanted(settings, "heads", ranking="isomorphic"))
    for stage in range(4):
        some = [name for name in names if name.startswith(f"layers.{stage}.")]
        heads.cut(apart, some, 0.4, wanted(settings, "heads", ranking="global"))
    assert heads.counts(together) == heads.counts(apart)
    heads.cut(dense, names, 0.4, wanted(settings, "heads", ranking="global"))
    assert heads.counts(dense) != heads.counts(apart)


@pytest.mark.parametrize(
    ("kind", "share", "multiple", "left"),
    [
        ("heads", 0.0, 4, (6, 8)),
        ("heads", 0.24, 4, (5, 8)),
        ("heads", 0.26, 4, (4, 8)),
        ("heads", 1.0, 4, (1, 8)),
        ("dimensions", 0.0, 3, (6, 8)),
        ("dimensions", 0.3, 1, (6, 6)),
        ("dimensions", 0.4, 4, (6, 4)),
        ("dimensions", 0.2, 4, (6, 8)),
        ("dimensions", 0.4, 3, (6, 6)),
        ("dimensions", 0.625, 2, (6, 4)),
        ("dimensions", 1.0, 4, (6, 4)),
        ("dimensions", 1.0, 1, (6, 1)),
        ("dimensions", 1.0, 16, (6, 8)),
    ],
)
def test_shares_are_rounded_and_one_stays(
    settings: params.Params, kind: str, share: float, multiple: int, left: tuple[int, int]
) -> None:
    network = alive(SIX)
    heads.cut(network, list(attentions(network)), share, wanted(settings, kind, round_to=multiple))
    assert [tuple(one.values()) for one in heads.counts(network).values()] == [left, left]
    network(torch.randn(2, 3, SIZE, SIZE))


def test_one_of_each_stays_however_it_is_ranked(settings: params.Params) -> None:
    network = weighed({"blocks.0.attn": [1, 1, 1, 1, 1, 1], "blocks.1.attn": [1, 1, 1, 1, 1, 9]})
    heads.cut(network, list(attentions(network)), 0.99, wanted(settings, "heads", ranking="global"))
    assert [one["heads"] for one in heads.counts(network).values()] == [1, 1]


def test_each_loses_its_own_share(settings: params.Params) -> None:
    network = alive(SIX)
    shares = {"blocks.0.attn": 0.5, "blocks.1.attn": 1.0}
    heads.cut(network, list(shares), shares, wanted(settings, "heads", ranking="sensitivity"))
    assert [one["heads"] for one in heads.counts(network).values()] == [3, 1]


def test_only_those_that_are_named_lose(settings: params.Params) -> None:
    network = alive(SIX)
    heads.cut(network, ["blocks.1.attn"], 0.5, wanted(settings, "heads", ranking="global"))
    assert [one["heads"] for one in heads.counts(network).values()] == [6, 3]


def test_nothing_goes_by_a_batch_norm_that_is_not_there(settings: params.Params) -> None:
    network = alive(SIX)
    given = wanted(settings, "heads", importance=params.BatchNormScale(name="bn_scale"))
    heads.cut(network, list(attentions(network)), 0.5, given)
    assert [one["heads"] for one in heads.counts(network).values()] == [6, 6]


def test_random_is_random_and_seeded(settings: params.Params) -> None:
    found = []
    for seed in (0, 0, 1):
        network = alive(SIX)
        torch.manual_seed(seed)
        heads.cut(
            network, list(attentions(network)), 0.5, wanted(settings, "heads", importance=params.Random(name="random"))
        )
        found.append(network.blocks[0].attn.qkv.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_every_importance_has_its_line(settings: params.Params) -> None:
    assert set(worth.IMPORTANCES) == {*GIVEN, "bn_scale", "random"}
