"""What a training picture may become, against torchvision, scipy and arithmetic; and the batches it comes in."""

import colorsys
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from stages.core import augmentation, batches, params
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.machine import Machine

COUNT, SIZE, CLASSES = 64, 16, 5
CPU = torch.device("cpu")
UNMIXED = params.Unmixed(name="none")
STILL = params.Augment(
    mirror=False,
    flip=False,
    shift=0,
    rotate=0.0,
    crop=1.0,
    stretch=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    erase=0.0,
)
MOVES = {"mirror": True, "flip": True, "shift": 2}
BENDS = {"rotate": 30.0, "crop": 0.4, "stretch": 1.5}
COLOURS = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.1}
EVERYTHING = {**MOVES, **BENDS, **COLOURS, "erase": 0.5}


def augment(**changed: object) -> params.Augment:
    return STILL.model_copy(update=changed)


def noise(count: int = COUNT, size: int = SIZE) -> Tensor:
    """Neighbours differ as much as they can: whatever is a pixel off shows."""
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def entropy(seed: int = 0) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, 0))


def recipe(how: params.Augment, count: int = COUNT, size: int = SIZE) -> augmentation.Recipe:
    return augmentation.recipe(how, count, (size, size), entropy(), CPU)


def drawn() -> dict[str, np.ndarray]:
    table = np.random.default_rng(entropy()).random((COUNT, len(augmentation.COLUMNS)))
    return dict(zip(augmentation.COLUMNS, table.T, strict=True))


def pictures(images: Tensor, *, streamed: bool = False) -> Pictures:
    labels = torch.arange(len(images)) % CLASSES
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1)
    return Pictures(images, labels, mean, std, CLASSES, torch.contiguous_format, streamed)


def epoch(
    given: Pictures,
    size: int = 10,
    how: params.Augment = STILL,
    mix: params.Mix = UNMIXED,
    at: int = 0,
) -> tuple[Tensor, Tensor]:
    images, labels, *_ = zip(*batches.shuffled(given, size, how, mix, 0, at), strict=True)
    return torch.cat(images), torch.cat(labels)


# ------------------------------------------------------------------------------------------------- moves


def test_shifts_mirrors_and_flips_are_exact_and_nothing_else_happens() -> None:
    image = noise(1, 6)
    padded = np.pad(image[0].numpy(), ((2, 2), (2, 2), (0, 0)), mode="edge")
    shifted = [padded[y : y + 6, x : x + 6] for y in range(5) for x in range(5)]
    possible = [view for picture in shifted for view in (picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1])]
    found = augmentation.seen(image.expand(1000, -1, -1, -1), recipe(augment(**MOVES), 1000, 6))
    assert found.dtype == torch.uint8
    places = [
        next(at for at, view in enumerate(possible) if np.array_equal(view, picture))
        for picture in found.permute(0, 2, 3, 1).numpy()
    ]
    counts = np.bincount(places, minlength=100)
    assert counts.min() >= 1  # the chance that one of 100 stays away in 1000 draws is below 0.5 %; the seed is fixed
    assert counts.max() <= 25


@pytest.mark.parametrize(("name", "axis"), [("mirror", 3), ("flip", 2)])
def test_a_half_is_mirrored_or_flipped(name: str, axis: int) -> None:
    images = noise(1000, 4)
    found, still = augmentation.seen(images, recipe(augment(**{name: True}), 1000, 4)), images.permute(0, 3, 1, 2)
    same, turned = ((found == other).flatten(1).all(1) for other in (still, still.flip(axis)))
    assert (same ^ turned).all()
    assert 440 < turned.sum() < 560


def test_nothing_on_is_nothing_done() -> None:
    assert not recipe(STILL)
    assert torch.equal(augmentation.seen(noise(), {}), noise().permute(0, 3, 1, 2))


# -------------------------------------------------------------------------------------------------- bends


@pytest.mark.parametrize(
    "how", [BENDS, {**BENDS, **MOVES}, {"rotate": 180.0}, {"crop": 0.3}, {**MOVES, "rotate": 1e-6}]
)
def test_bends_sample_where_they_should(how: dict[str, object]) -> None:
    """Pixel by pixel from the draws, in float64, read by scipy; float32 errs by less than 1/500 of a grey level."""
    settings, images, draws = augment(**how), noise(), drawn()
    found = augmentation.seen(images, recipe(settings))
    middle = (SIZE - 1) / 2
    for at in range(COUNT):
        draw = {name: values[at] for name, values in draws.items()}
        rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
        if settings.flip and draw["flip"] < 0.5:
            rows = SIZE - 1 - rows
        if settings.mirror and draw["mirror"] < 0.5:
            columns = SIZE - 1 - columns
        area = settings.crop + (1 - settings.crop) * draw["area"]
        most = min(settings.stretch, 1 / area)
        aspect = np.exp((2 * draw["aspect"] - 1) * np.log(most))
        tall, wide = np.sqrt(area / aspect), np.sqrt(area * aspect)
        y, x = (rows - middle) * tall, (columns - middle) * wide
        angle = np.deg2rad((2 * draw["rotate"] - 1) * settings.rotate)
        y, x = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
        y += middle + (draw["top"] - 0.5) * SIZE * (1 - tall)
        x += middle + (draw["left"] - 0.5) * SIZE * (1 - wide)
        y += int(draw["rows"] * (2 * settings.shift + 1)) - settings.shift
        x += int(draw["columns"] * (2 * settings.shift + 1)) - settings.shift
        for colour in range(3):
            plane = images[at, ..., colour].numpy() / 255
            expected = ndimage.map_coordinates(plane, [y, x], order=1, mode="nearest")
            np.testing.assert_allclose(found[at, colour].numpy(), expected, atol=2e-5)


def test_a_bend_that_bends_nothing_equals_the_exact_moves() -> None:
    bent = augmentation.seen(noise(), recipe(augment(**MOVES, rotate=1e-6)))
    assert bent.is_floating_point()
    torch.testing.assert_close(bent, augmentation.seen(noise(), recipe(augment(**MOVES))) / 255, atol=2e-5, rtol=0)


def test_rotation_is_torchvisions() -> None:
    images, settings = noise(), augment(rotate=90.0)
    found = augmentation.seen(images, recipe(settings))
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    inside = torch.from_numpy(rows**2 + columns**2 < (SIZE / 2 - 1) ** 2)  # elsewhere it fills with black
    for image, picture, draw in zip(images.permute(0, 3, 1, 2) / 255, found, drawn()["rotate"], strict=True):
        angle = (2 * draw - 1) * 90
        expected = torchvision.rotate(image, angle, InterpolationMode.BILINEAR)
        torch.testing.assert_close(picture[:, inside], expected[:, inside], atol=1e-4, rtol=0)


def test_a_crop_is_torchvisions() -> None:
    """Inside: at its edges torchvision repeats the crop's border, where there still is a picture."""
    images = noise(20)
    generator = np.random.default_rng(0)
    for image in images:
        tall, wide = generator.integers(4, SIZE + 1, 2)
        top, left = generator.integers(0, SIZE - tall + 1), generator.integers(0, SIZE - wide + 1)
        size, at = np.array([tall, wide]) / SIZE, (2 * np.array([top, left]) + [tall, wide]) / SIZE - 1
        affine = torch.tensor([[[size[1], 0, at[1]], [0, size[0], at[0]]]], dtype=torch.float32)
        found = augmentation.seen(image[None], {"affine": affine})[0]
        expected = torchvision.resized_crop(
            image.permute(2, 0, 1) / 255, int(top), int(left), int(tall), int(wide), [SIZE, SIZE], antialias=False
        )
        edge = SIZE // min(tall, wide) + 1
        inside = slice(edge, SIZE - edge)
        torch.testing.assert_close(found[:, inside, inside], expected[:, inside, inside], atol=2e-5, rtol=0)


def test_crops_keep_the_area_and_aspect_they_should_and_stay_inside() -> None:
    affine = recipe(augment(crop=0.4, stretch=1.5), 2000)["affine"].double()
    wide, tall = affine[:, 0, 0], affine[:, 1, 1]
    assert (affine[:, 0, 2].abs() + wide).max() <= 1 + 1e-6
    assert (affine[:, 1, 2].abs() + tall).max() <= 1 + 1e-6
    area, aspect = wide * tall, wide / tall
    assert 0.4 - 1e-6 <= area.min() < 0.41
    assert 0.99 < area.max() <= 1 + 1e-6
    assert 1 / 1.5 - 1e-6 <= aspect.min() < 0.68
    assert 1.48 < aspect.max() <= 1.5 + 1e-6
    assert area.mean().item() == pytest.approx(0.7, abs=0.02)


# ------------------------------------------------------------------------------------------------ colours


@pytest.mark.parametrize(
    "names", [["brightness"], ["contrast"], ["saturation"], ["brightness", "contrast", "saturation"]]
)
def test_colours_change_as_torchvision_changes_them(names: list[str]) -> None:
    settings, images, draws = augment(**{name: COLOURS[name] for name in names}), noise(), drawn()
    found = augmentation.seen(images, recipe(settings))
    for at, image in enumerate(images.permute(0, 3, 1, 2) / 255):
        expected = image
        for name in names:
            factor = 1 - COLOURS[name] + 2 * COLOURS[name] * draws[name][at]
            expected = getattr(torchvision, f"adjust_{name}")(expected, factor)
        torch.testing.assert_close(found[at], expected, atol=2e-6, rtol=0)


def test_hue_turns_the_chroma_of_yiq() -> None:
    """By Python's own YIQ, whose coefficients are rounded otherwise: to one hundredth. Pale colours meet no limit."""
    pale = torch.randint(100, 156, (COUNT, 2, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = augmentation.seen(pale, recipe(augment(hue=0.5), size=2))
    for image, picture, draw in zip(pale.numpy() / 255, found.numpy(), drawn()["hue"], strict=True):
        before, after = colorsys.rgb_to_yiq(*image[0, 0]), colorsys.rgb_to_yiq(*picture[:, 0, 0])
        turned = complex(*before[1:]) * np.exp(1j * np.pi * (2 * draw - 1))
        assert after == pytest.approx((before[0], turned.real, turned.imag), abs=0.01)


# ------------------------------------------------------------------------------------------------ erasing


def test_erased_boxes_have_the_size_they_should() -> None:
    images = torch.ones(2000, 3, 32, 24)
    how = augmentation.recipe(augment(erase=0.25), 2000, (32, 24), entropy(), CPU)
    augmentation.erase(images, how)
    assert torch.equal(images[:, :1].expand_as(images), images)
    gone = images[:, 0] == 0
    hit = gone.flatten(1).any(1)
    assert 430 < hit.sum() < 570
    areas = gone[hit].double().mean((1, 2))
    assert 0.015 < areas.min() < 0.03  # sides are whole pixels
    assert 0.31 < areas.max() < 0.35
    assert areas.mean().item() == pytest.approx(0.175, abs=0.015)
    tall, wide = gone[hit].any(2).sum(1), gone[hit].any(1).sum(1)
    assert torch.equal(tall * wide, gone[hit].sum((1, 2)))  # a box, and one alone
    assert 0.25 < (tall / wide).min() < 0.5
    assert 2.5 < (tall / wide).max() < 3.6
    assert gone.any(0).all()


def test_what_is_erased_is_the_mean_of_the_training_pictures() -> None:
    given = pictures(noise())
    erased, _ = epoch(given, how=augment(erase=1.0))
    plain, _ = epoch(given)
    gone = (erased[:, 1:2] == 0).expand_as(erased)  # no grey level is the mean of green
    assert 0.05 < gone.float().mean() < 0.3
    assert torch.equal(erased[~gone], plain[~gone])
    back = erased * given.std + given.mean
    assert torch.equal(back[gone], given.mean.expand_as(back)[gone])


# ------------------------------------------------------------------------------------------------- mixing


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_labels_say_what_is_in_the_picture(name: Literal["mixup", "cutmix"]) -> None:
    """Each picture is of one colour, its own: so its pixels tell of whom they are."""
    shades = torch.arange(COUNT, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    labels, shares = torch.arange(COUNT), []
    generator = np.random.default_rng(0)
    settings = params.Mixed(name=name, alpha=1.0)
    for _ in range(100):
        images, said = augmentation.MIXES[name](settings, shades.clone(), labels, COUNT, generator)
        assert said.shape == (COUNT, COUNT)
        torch.testing.assert_close(said.sum(1), torch.ones(COUNT))
        expected = said @ labels.float()
        torch.testing.assert_close(images.mean((1, 2, 3)), expected, rtol=1e-5, atol=1e-4)
        if name == "mixup":
            torch.testing.assert_close(images, expected.view(-1, 1, 1, 1).expand_as(images), rtol=1e-5, atol=1e-4)
        else:
            own = images == shades
            assert torch.equal(images[~own], shades.roll(1, 0)[~own])
            box = ~own[0, 0]
            assert box.sum() == box.any(0).sum() * box.any(1).sum()
        assert torch.equal(said > 0, (torch.eye(COUNT) * said[0, 0] + torch.eye(COUNT).roll(1, 0) * said[0, -1]) > 0)
        shares.append(said[0, 0].item())
    assert np.mean(shares) == pytest.approx(0.5 if name == "mixup" else 0.72, abs=0.1)
    assert np.std(shares) > 0.15


def test_a_low_alpha_mixes_little() -> None:
    generator = np.random.default_rng(0)
    settings = params.Mixed(name="mixup", alpha=0.1)
    images, labels = torch.rand(4, 3, 4, 4), torch.arange(4)
    shares = [augmentation.mixup(settings, images.clone(), labels, 4, generator)[1].max().item() for _ in range(200)]
    assert np.mean(np.array(shares) > 0.95) > 0.6


def test_unmixed_is_left_alone() -> None:
    images, labels = torch.rand(4, 3, 4, 4), torch.arange(4)
    found = augmentation.unmixed(UNMIXED, images, labels, 4, np.random.default_rng(0))
    assert found[0] is images
    assert found[1] is labels


# ------------------------------------------------------------------------------------------------- epochs


def test_every_epoch_sees_every_picture_once_in_its_own_order() -> None:
    shades = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 4, 4, 3)
    given = replace(pictures(shades), labels=torch.arange(10), mean=torch.zeros(1, 3, 1, 1), std=torch.ones(1, 3, 1, 1))
    orders = [epoch(given, 4, at=number)[1].tolist() for number in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[1] != orders[2]
    images, labels = epoch(given, 4)
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)


def test_the_same_epoch_twice_is_the_same_whatever_else_is_drawn() -> None:
    given = pictures(noise())
    for mix in (UNMIXED, params.Mixed(name="mixup", alpha=0.4), params.Mixed(name="cutmix", alpha=1.0)):
        first = epoch(given, how=augment(**EVERYTHING), mix=mix)
        again = epoch(given, how=augment(**EVERYTHING), mix=mix)
        later = epoch(given, how=augment(**EVERYTHING), mix=mix, at=1)
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], later[0])


@pytest.mark.parametrize("name", ["mirror", "flip", "shift", "rotate", "crop", *COLOURS, "erase"])
def test_pictures_and_epochs_differ(name: str) -> None:
    same = pictures(noise(1).expand(COUNT, -1, -1, -1))
    first, later = (epoch(same, how=augment(**{name: EVERYTHING[name]}), at=at)[0] for at in (0, 1))
    assert len(torch.unique(first, dim=0)) > (1 if name in ("mirror", "flip") else 15)
    assert not torch.equal(first, later)


def test_one_thing_more_changes_no_other_things_draws() -> None:
    alone = recipe(augment(brightness=0.4))["brightness"]
    assert torch.equal(alone, recipe(augment(**EVERYTHING))["brightness"])


@pytest.mark.parametrize("how", [STILL, augment(**MOVES), augment(**EVERYTHING)])
def test_the_size_of_a_batch_changes_no_picture(how: params.Augment) -> None:
    given = pictures(noise())
    for one, other in zip(epoch(given, 6, how), epoch(given, COUNT, how), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_pictures_themselves_stay_as_they_are() -> None:
    given = pictures(noise())
    for how in (STILL, augment(**MOVES), augment(**EVERYTHING)):
        epoch(given, how=how, mix=params.Mixed(name="mixup", alpha=1.0))
    assert torch.equal(given.images, noise())


@pytest.mark.parametrize(("count", "expected"), [(8, 2), (9, 2), (10, 3)])
def test_a_last_batch_of_one_is_left_out(count: int, expected: int) -> None:
    assert batches.batches_per_epoch(count, 4) == expected
    for streamed in (False, True):
        stream = batches.shuffled(pictures(noise(count), streamed=streamed), 4, STILL, UNMIXED, 0, 0)
        assert len(list(stream)) == expected


@pytest.mark.parametrize("streamed", [False, True])
def test_in_order_nothing_is_augmented(streamed: bool) -> None:
    given = pictures(noise(1100), streamed=streamed)
    images, labels = zip(*batches.in_order(given), strict=True)
    assert {len(part) for part in images} <= {366, 367}
    assert torch.equal(torch.cat(labels), given.labels)
    expected = (noise(1100).permute(0, 3, 1, 2).float() / 255 - given.mean) / given.std
    assert torch.equal(torch.cat(images), expected)


# ---------------------------------------------------------------------------------------------- streaming


@pytest.fixture
def split(tmp_path: Path) -> storage.Split:
    np.save(tmp_path / "images.npy", noise(100).numpy())
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    facts = storage.Facts("noise", tuple("abcde"), SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "crop")
    return storage.Split(facts, images, np.arange(100) % CLASSES)


def machine(resident: float) -> Machine:
    return Machine(CPU, torch.float32, resident)


@pytest.mark.parametrize("mix", [UNMIXED, params.Mixed(name="cutmix", alpha=1.0)])
def test_streamed_batches_are_the_resident_ones_to_the_bit(split: storage.Split, mix: params.Mix) -> None:
    resident, streamed = (batches.on_device(split, machine(share)) for share in (1.0, 0.0))
    assert (resident.streamed, streamed.streamed) == (False, True)
    for how in (STILL, augment(**EVERYTHING)):
        assert all(map(torch.equal, epoch(resident, 7, how, mix), epoch(streamed, 7, how, mix)))
    for one, other in zip(batches.in_order(resident), batches.in_order(streamed), strict=True):
        assert all(map(torch.equal, one, other))


def test_the_share_of_free_memory_decides(split: storage.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "free_memory", lambda _self: 2 * split.images.nbytes)
    assert [batches.on_device(split, machine(share)).streamed for share in (0.49, 0.5)] == [True, False]


@pytest.mark.parametrize(("share", "mapped"), [(0.0, True), (1.0, False)])
def test_only_what_is_streamed_stays_in_its_file(split: storage.Split, share: float, mapped: bool) -> None:
    images = batches.on_device(split, machine(share)).images
    assert (images.data_ptr() == split.images.ctypes.data) == mapped


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lightvision")]


def test_the_thread_ends_with_its_epoch_however_that_ends(split: storage.Split) -> None:
    given = batches.on_device(split, machine(0.0))

    def begun() -> Iterator[object]:
        for batch in batches.shuffled(given, 7, STILL, UNMIXED, 0, 0):
            assert workers()
            yield batch

    for _ in begun():
        pass
    assert not workers()
    for _ in begun():
        break
    assert not workers()
    stream = batches.shuffled(given, 7, STILL, UNMIXED, 0, 0)
    next(stream)
    assert workers()
    stream.close()
    assert not workers()
    with pytest.raises(KeyboardInterrupt):
        interrupted(begun())
    assert not workers()


def interrupted(stream: Iterator[object]) -> None:
    for _ in stream:
        raise KeyboardInterrupt


def test_an_error_in_the_thread_surfaces(split: storage.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = batches._gathered, iter(range(100))

    def broken(*arguments: object) -> Tensor:
        if next(calls) == 5:
            raise OSError("the disk is gone")
        return plain(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(batches, "_gathered", broken)
    stream = batches.shuffled(batches.on_device(split, machine(0.0)), 7, STILL, UNMIXED, 0, 0)
    assert len(list(itertools.islice(stream, 5))) == 5
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert not workers()
