"""What judges networks: spoilt pictures, maps of what is looked at, and which pictures are shown."""

import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from stages.core import batches, machine, params
from stages.core.datasets import storage
from stages.core.judging import attention, drawings, looking, robustness, scores, showing
from stages.core.judging.corruptions import CORRUPTIONS, UNTOUCHED
from stages.core.networks import families
from stages.core.running import files, sources

SIZE = 32


def photographs(count: int = 4, size: int = SIZE) -> Tensor:
    """Smooth in places, as photographs are; uint8, picture x colour x row x column."""
    rough = np.random.default_rng(0).normal(0, 1, (count, 3, size, size))
    smooth = ndimage.gaussian_filter(rough, (0, 0, 2, 2))
    return torch.from_numpy((smooth / abs(smooth).max() * 127 + 128).astype(np.uint8))


def spoilt(kind: str, amount: float, images: Tensor, seed: int = 0) -> np.ndarray:
    return CORRUPTIONS[kind](images, amount, torch.arange(len(images)), seed).numpy()


def test_every_kind_has_amounts() -> None:
    assert CORRUPTIONS.keys() == UNTOUCHED.keys() == params.Robustness.model_fields.keys()


def test_noise_is_normal_and_drawn_for_each_picture() -> None:
    grey = torch.full((3, 3, 200, 200), 128, dtype=torch.uint8)
    found = (spoilt("noise", 0.1, grey).astype(float) - 128) / 255
    assert found.std() == pytest.approx(0.1, rel=0.01)
    assert abs(found.mean()) < 0.001
    assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 0.02
    stronger = (spoilt("noise", 0.2, grey).astype(float) - 128) / 255
    assert np.corrcoef(found.ravel(), stronger.ravel())[0, 1] > 0.99
    assert not np.array_equal(spoilt("noise", 0.1, grey), spoilt("noise", 0.1, grey, seed=1))


def test_noise_stays_between_black_and_white() -> None:
    """A byte that runs over would make white black."""
    white = torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    assert spoilt("noise", 0.1, white).min() > 100
    assert spoilt("noise", 0.1, white - 255).max() < 155


def test_contrast_is_what_pillow_calls_it() -> None:
    images = photographs()
    for found, pixels in zip(spoilt("contrast", 0.3, images), images.permute(0, 2, 3, 1).numpy(), strict=True):
        expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(pixels)).enhance(0.3)).astype(int)
        assert abs(found.transpose(1, 2, 0) - expected).max() <= 1


def test_jpeg_is_what_pillow_writes() -> None:
    images = photographs()
    for found, pixels in zip(spoilt("jpeg", 15, images), images.permute(0, 2, 3, 1).numpy(), strict=True):
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=15)
        expected = np.asarray(Image.open(stream)).astype(int)
        assert abs(found.transpose(1, 2, 0) - expected).mean() < 1
        assert abs(found.transpose(1, 2, 0) - pixels.astype(int)).mean() > 2


def test_blur_is_that_of_scipy() -> None:
    images = photographs()
    expected = ndimage.gaussian_filter(images.numpy().astype(float), (0, 0, 0.06 * SIZE, 0.06 * SIZE), mode="mirror")
    assert abs(spoilt("blur", 0.06, images) - expected).max() < 2


def test_blur_is_the_same_at_any_size() -> None:
    """Of three waves to a picture's side, as much is left as the Fourier transform of a Gaussian says."""
    for size in (16, 64, 224):
        wave = np.cos(np.pi * 6 * np.arange(size) / (size - 1))
        images = torch.from_numpy(np.broadcast_to(128 + 100 * wave, (1, 3, size, size)).round().astype(np.uint8).copy())
        left = (spoilt("blur", 0.06, images)[0, 0, 0] - 128.0) @ wave / (wave @ wave) / 100
        waves = 3 * size / (size - 1)
        assert left == pytest.approx(np.exp(-2 * (np.pi * waves * 0.06) ** 2), abs=0.02)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_more_of_it_spoils_more_and_the_first_of_it_something(kind: str) -> None:
    images = photographs(size=64)
    defaults = params.load(sources.ROOT / "params.yaml").evaluate.robustness.measured()[kind]
    off = [abs(spoilt(kind, amount, images) - images.numpy().astype(int)).mean() for amount in defaults]
    assert off == sorted(off)
    assert off[0] > 0.5
    untouched = abs(spoilt(kind, UNTOUCHED[kind] or 1e-6, images) - images.numpy().astype(int)).mean()
    assert untouched < (off[0] / 2 if kind == "jpeg" else 0.01)  # at any quality JPEG keeps colours at half the size


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_picture_is_spoilt_as_it_is_whatever_is_beside_it(kind: str) -> None:
    images, amount = photographs(), {"noise": 0.2, "blur": 0.05, "contrast": 0.3, "jpeg": 20}[kind]
    together = spoilt(kind, amount, images)
    alone = [CORRUPTIONS[kind](images[[n]], amount, torch.tensor([n]), 0).numpy()[0] for n in range(4)]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"noise": [0.2, 0.1]}, r"\[0.2, 0.1\]: rising amounts, each once"),
        ({"blur": [0.02, 0.02]}, "rising amounts, each once"),
        ({"contrast": [0.1, 0.5]}, "falling amounts, each once"),
        ({"jpeg": [10, 25]}, "falling amounts, each once"),
        ({"jpeg": [0]}, "greater than or equal to 1"),
        ({"noise": [0]}, "greater than 0"),
    ],
)
def test_severities_come_in_order(change: dict[str, list[float]], said: str) -> None:
    empty: dict[str, list[float]] = {"noise": [], "blur": [], "contrast": [], "jpeg": []}
    with pytest.raises(ValidationError, match=said):
        params.Robustness.model_validate(empty | change)


# ------------------------------------------------------------------------------------------- robustness


def pictures(prepared: Path, settings: params.Params) -> batches.Pictures:
    return batches.on_device(storage.load(prepared / "test"), machine.choose(settings.compute, 0))


class Normed(nn.Module):
    """Changes at every look, if it may."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).mean(dim=(2, 3)))


def test_batchnorm_learns_nothing_from_the_test_pictures(prepared: Path, settings: params.Params) -> None:
    network = Normed().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    robustness.count({"one": network}, pictures(prepared, settings), CORRUPTIONS["noise"], 0.2, 0)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert network.norm.training


def listened() -> tuple[list[list[int]], Callable[[Tensor, float, Tensor, int], Tensor]]:
    """Noise, and the numbers of the pictures that it was put on together."""
    heard: list[list[int]] = []

    def corrupt(images: Tensor, amount: float, numbers: Tensor, seed: int) -> Tensor:
        heard.append(numbers.tolist())
        return CORRUPTIONS["noise"](images, amount, numbers, seed)

    return heard, corrupt


def test_counts_are_those_of_any_batches(
    prepared: Path, settings: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    network = Normed().eval()
    seen = pictures(prepared, settings)
    found = {}
    for pixels in (2**21, 5 * 8 * 8):
        monkeypatch.setattr(batches, "PIXELS", pixels)
        batch, corrupt = listened()
        found[pixels] = robustness.count({"one": network}, seen, corrupt, 0.3, 0)
        assert max(map(len, batch)) == (24 if pixels == 2**21 else 5)
        assert [number for numbers in batch for number in numbers] == list(range(24))
    assert len({count["one"] for count in found.values()}) == 1
    split = storage.load(prepared / "test")
    drawn = spoilt("noise", 0.3, torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy()))
    normal = (drawn.transpose(0, 2, 3, 1) / 255 - split.facts.mean) / split.facts.std
    said = network(torch.from_numpy(normal).float().permute(0, 3, 1, 2)).argmax(dim=1).numpy()
    assert found[2**21]["one"] == (said == split.labels).sum()


# ----------------------------------------------------------------------------------------------- scores


def test_a_confidence_of_one_lies_in_the_last_bin(settings: params.Params) -> None:
    """Sure and wrong in half of the pictures, nearly sure and right in the others: one bin, and their mean gap."""
    chances = np.array([[1, 0], [1, 0], [0.96, 0.04], [0.96, 0.04]], np.float32)
    labels = np.array([1, 1, 0, 0])
    assert scores.calibration_error(chances, labels, 10) == pytest.approx(0.98 - 0.5, abs=1e-6)
    [row] = scores.reliability(chances, labels, settings.evaluate.model_copy(update={"calibration_bins": 10}))
    assert (row["bin"], row["from"], row["to"], row["pictures"], row["accuracy"]) == (10, 0.9, 1.0, 4, 0.5)


def test_a_confidence_between_two_bins_lies_in_the_upper_one(settings: params.Params) -> None:
    two = settings.evaluate.model_copy(update={"calibration_bins": 2})
    [row] = scores.reliability(np.array([[0.5, 0.5], [0.1, 0.9]], np.float32), np.array([0, 1]), two)
    assert (row["bin"], row["from"], row["to"], row["pictures"]) == (2, 0.5, 1.0, 2)


def test_two_classes_have_one_answer_among_the_top(settings: params.Params) -> None:
    chances = np.array([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]], np.float32)
    found = scores.judge(chances, np.array([0, 0, 1]), ("a", "b"), settings.evaluate)
    assert found["top_accuracy"] == found["accuracy"] == pytest.approx(2 / 3)


def test_a_class_without_pictures_is_in_no_mean(settings: params.Params) -> None:
    """Even where it was answered: of two F1, 2/3 and 1, that is the mean."""
    chances = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]], np.float32)
    found = scores.judge(chances, np.array([0, 0, 1]), ("a", "b", "unseen"), settings.evaluate)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_network_that_is_surely_wrong_loses_as_much(settings: params.Params) -> None:
    """-log of 1e-30 is 69.1, however little that is; a probability of zero counts as the least normal float32."""
    chances = np.array([[1, 1e-30, 0], [0.25, 0.5, 0.25]], np.float32)
    found = scores.judge(chances, np.array([1, 0]), ("a", "b", "c"), settings.evaluate)
    assert found["loss"] == pytest.approx((30 * math.log(10) + 2 * math.log(2)) / 2, rel=1e-6)
    found = scores.judge(chances, np.array([2, 0]), ("a", "b", "c"), settings.evaluate)
    assert found["loss"] == pytest.approx((126 * math.log(2) + 2 * math.log(2)) / 2, rel=1e-6)


# -------------------------------------------------------------------------------------------- attention


class Planes(nn.Module):
    """Works in place behind the layer that is to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.layer(x), inplace=True).mean(dim=(2, 3)))


class RowsFirst(nn.Module):
    """Channels come last, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.layer, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.layer(self.begin(x).permute(0, 2, 3, 1))).mean(dim=(1, 2)))


class Tokens(nn.Module):
    """Two tokens stand before those of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.layer, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.LayerNorm(5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.begin(x).flatten(2).transpose(1, 2)
        said = self.layer(torch.cat([torch.ones_like(tokens[:, :2]), tokens], dim=1))
        return self.head(functional.relu(said[:, 2:]).mean(dim=1))


class ClassToken(Tokens):
    """The last norm's picture tokens are read by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.begin(x).flatten(2).transpose(1, 2)
        said = self.layer(torch.cat([torch.ones_like(tokens[:, :2]), tokens], dim=1))
        heard = torch.cat([functional.relu(said[:, 2:]).mean(dim=1, keepdim=True), said[:, 1:]], dim=1)
        return self.head(self.last(heard)[:, 0])


def said_by_layer(network: Any, image: Tensor) -> np.ndarray:
    """Channel x row x column."""
    begun = network.layer(image) if isinstance(network, Planes) else network.begin(image)
    if not isinstance(network, Planes):
        begun = network.layer(begun.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return begun[0].detach().numpy()


@pytest.mark.parametrize("kind", [Planes, RowsFirst, Tokens])
def test_heat_by_hand(kind: Callable[[], nn.Module]) -> None:
    """Each channel counts as much as the answer grows with it: its weight, times the share that passes the ReLU."""
    torch.manual_seed(0)
    network: Any = kind().eval()
    image = torch.randn(1, 3, 6, 6)
    sight = attention.find(network, image.clone())
    assert sight
    assert sight.path == "layer"
    said = said_by_layer(network, image)
    for answer in range(4):
        worth = network.head.weight[answer].detach().numpy() * (said > 0).mean(axis=(1, 2)) / 36
        expected = np.maximum(np.tensordot(worth, said, 1), 0)
        assert expected.any()
        assert attention.heat(sight, image.clone(), answer).numpy() == pytest.approx(
            expected / expected.max(), abs=1e-5
        )
    assert not any(module._forward_hooks for module in network.modules())  # pyright: ignore[reportPrivateUsage]


def test_a_layer_that_nobody_reads_is_passed_over() -> None:
    torch.manual_seed(0)
    sight = attention.find(ClassToken().eval(), torch.randn(1, 3, 6, 6))
    assert sight
    assert sight.path == "layer"


@pytest.mark.slow
def test_a_vision_transformer_is_looked_at_before_its_last_block() -> None:
    torch.manual_seed(0)
    network = families.build(params.ViT(name="vit_tiny", patch=4), 3, 32).eval()
    sight = attention.find(network, torch.randn(1, 3, 32, 32))
    assert sight
    assert sight.path == "blocks.11.norm1"
    assert attention.heat(sight, torch.randn(1, 3, 32, 32), 1).shape == (8, 8)


def test_of_an_ensemble_the_first_member_is_looked_at() -> None:
    torch.manual_seed(0)
    network = families.Ensemble([Planes(), RowsFirst()]).eval()
    image = torch.randn(1, 3, 6, 6)
    sight = attention.find(network, image.clone())
    assert sight
    assert sight.path == "members.0.layer"
    alone = attention.find(network.get_submodule("members.0"), image.clone())
    assert alone
    assert torch.equal(attention.heat(sight, image.clone(), 2), attention.heat(alone, image.clone(), 2))


def test_a_network_without_rows_and_columns_has_none() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(16, 3)).eval()
    assert attention.find(network, torch.randn(1, 3, 6, 6)) is None  # two rows


@pytest.mark.parametrize(
    ("second", "count", "shown", "said"),
    [
        ([1, 1, 0, 0], 2, [1, 0], ""),
        ([0, 0, 0, 1], 3, [3, 2, 0], "they disagree on 1 of the 3 pictures; the others are those that they are least"),
        ([0, 0, 0, 0], 2, [2, 0], "of teacher and student, they never disagree: these are the pictures that"),
    ],
)
def test_why_these_pictures_are_looked_at(
    prepared: Path,
    settings: params.Params,
    tmp_path: Path,
    second: list[int],
    count: int,
    shown: list[int],
    said: str,
) -> None:
    """Disputed ones, the surest first; then agreed ones, the least sure first."""
    sure = np.array([0.7, 0.8, 0.6, 0.9])
    one = np.stack([sure, 1 - sure, 0 * sure], axis=1)
    other = np.where(np.array(second)[:, None] == 0, one, one[:, [1, 0, 2]])
    network = families.Ensemble([Planes()]).eval()
    networks = {"teacher": network, "student": nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()}
    split, seen = storage.load(prepared / "test"), pictures(prepared, settings)
    looking.write(tmp_path / "a", networks, {"teacher": one, "student": other}, split, seen, count)
    told = files.read_json(tmp_path / "a/attention.json")
    assert [picture["picture"] for picture in told["pictures"]] == shown
    assert said in told["reason"]
    assert "the teacher is an ensemble: its first member is shown" in told["reason"]
    assert "no layer of the student keeps 4 rows and columns" in told["reason"]
    assert told["layers"] == {"teacher": "members.0.layer", "student": None}
    assert sorted(path.name for path in (tmp_path / "a").glob("*.png")) == sorted(
        f"{number:06}{of}.png" for number in shown for of in ("", "-teacher")
    )


def test_heat_is_red_where_it_is() -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    found = np.asarray(drawings.heated(pixels, heat)).astype(int)
    assert found.shape == (128, 128, 3)
    assert found[0, 127].tolist() == pytest.approx([100 + 0.7 * 155, 30, 30], abs=2)
    assert found[127, 0].tolist() == [100, 100, 100]
    assert np.asarray(drawings.enlarged(pixels)).shape == (128, 128, 3)
    assert drawings.enlarged(np.zeros((224, 224, 3), np.uint8)).size == (224, 224)


def test_each_of_the_commonest_confusions_is_shown_before_a_second_of_any() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    choice = np.array([1, 1, 1, 2, 0, 1, 2, 0])
    sure = np.array([0.9, 0.5, 0.7, 0.6, 0.8, 0.6, 0.5, 0.4])
    chances = np.full((8, 3), 0.0)
    chances[np.arange(8), choice] = sure
    # 0 as 1 three times (1, 2, 0 by rising confidence), then 2 as 0, 0 as 2, 1 as 0 once each; 6 and 5 are right
    assert showing.examples(chances, labels, 8) == [1, 7, 3, 4, 2, 0, 6, 5]
    assert showing.examples(chances, labels, 3) == [1, 7, 3]
    assert showing.examples(chances, labels, 0) == []
