"""Views are the same for everybody, and what a teacher said of them is what it would say at each step."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages import advise
from stages.core import advice, batches, machine, params, views
from stages.core.advice import Record, Views
from stages.core.batches import Part, Pictures
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.schooling import school
from stages.core.schooling.classes import teach
from stages.core.training import loop
from tests.lessons import SMALL, equal, new

UNMIXED = params.Unmixed(name="none")
MIXUP, CUTMIX = (params.Mixed(name=name, alpha=1.0) for name in ("mixup", "cutmix"))
HINTON = params.Hinton(name="hinton", temperature=4.0, alpha=0.9)
STILL: dict[str, object] = {"mirror": False, "flip": False, "shift": 0, "rotate": 0.0, "crop": 1.0, "stretch": 1.0}
STILL |= dict.fromkeys(("brightness", "contrast", "saturation", "hue", "erase"), 0.0)
LIVELY = params.Augment.model_validate(STILL | {"mirror": True, "shift": 2, "erase": 0.3, "brightness": 0.2})
TURNING = params.Augment.model_validate(STILL | {"mirror": True, "rotate": 20.0, "crop": 0.6})


def asked(**changes: object) -> params.Advise:
    kept = {"views": 2, "mix": UNMIXED, "keep": None, "precision": "float32", "seed": 0}
    return params.Advise.model_validate(kept | changes)


@pytest.fixture
def teacher(prepared: Path, tmp_path: Path) -> Path:
    network, facts = new(), storage.load(prepared / "train").facts
    network(torch.randn(16, 3, 8, 8))
    artifact.save_float(tmp_path / "teacher", network, SMALL, facts)
    return tmp_path / "teacher"


def ask(
    to: Path, teacher: Path, prepared: Path, settings: params.Params, wanted: params.Advise, augment: params.Augment
) -> dict[str, float]:
    advise.main(
        run=Run(to.with_name("run")),
        advise=wanted,
        augment=augment,
        compute=settings.compute.model_copy(update={"precision": "float32"}),
        seed=0,
        train=prepared / "train",
        teacher=teacher,
        advice=to,
        metrics=to.with_name("advise.json"),
    )
    torch.use_deterministic_algorithms(mode=False)
    return json.loads(to.with_name("advise.json").read_text())


def pictures(prepared: Path, *, resident: float = 1.0) -> Pictures:
    here = machine.Machine(torch.device("cpu"), torch.float32, resident)
    return batches.on_device(storage.load(prepared / "train"), here)


def spoken(folder: Path) -> Views:
    return Views(Record.read(folder), folder)


@pytest.mark.parametrize("augment", [LIVELY, TURNING], ids=["moves", "turns"])
@pytest.mark.parametrize("mix", [UNMIXED, MIXUP, CUTMIX], ids=["unmixed", "mixup", "cutmix"])
def test_cached_advice_is_online_advice_to_the_bit(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path, mix: params.Mix, augment: params.Augment
) -> None:
    """The teacher, asked about the very batch that a student sees, says in float32 what was kept of it.

    All pictures in one batch, as the stage asks here: libraries round otherwise in batches of other sizes.
    """
    ask(tmp_path / "advice", teacher, prepared, settings, asked(mix=mix), augment)
    network, given = artifact.load(teacher).network, pictures(prepared)
    seen = 0
    for epoch in range(3):
        for batch in spoken(tmp_path / "advice").shuffled(given, len(given), seed=5, epoch=epoch):
            with torch.no_grad():
                assert batch.advice is not None
                assert torch.equal(network(batch.images), batch.advice)
            seen += len(batch.images)
        for batch in spoken(tmp_path / "advice").shuffled(given, 16, seed=5, epoch=epoch):
            with torch.no_grad():
                torch.testing.assert_close(network(batch.images), batch.advice, rtol=1e-5, atol=1e-6)
    assert seen == 3 * len(given)


@pytest.mark.parametrize("mix", [UNMIXED, MIXUP, CUTMIX], ids=["unmixed", "mixup", "cutmix"])
def test_a_view_is_the_same_in_any_batch_of_any_seed(prepared: Path, mix: params.Mix) -> None:
    given = pictures(prepared)
    record = Record(asked(mix=mix), LIVELY, "", "", 3)
    found: list[dict[int, tuple[Tensor, Tensor]]] = []
    for seed, size, epoch in ((0, 16, 0), (3, 7, 2)):  # two views: epoch 2 sees view 0 again
        stream = Views(record, None).shuffled(given, size, seed, epoch)
        rows = [row for batch in stream for row in zip(batch.numbers.tolist(), batch.images, batch.labels, strict=True)]
        found.append({number: (image, label) for number, image, label in rows})
    assert list(found[0]) != list(found[1])
    common = found[0].keys() & found[1].keys()
    assert len(common) > len(given) - 2
    for number in common:
        assert all(map(torch.equal, found[0][number], found[1][number]))
    other = next(Views(record, None).shuffled(given, 16, 0, 1))
    assert any(
        not torch.equal(image, found[0][number][0])
        for number, image in zip(other.numbers.tolist(), other.images, strict=True)
    )


def test_the_order_is_that_of_a_student_without_views(prepared: Path) -> None:
    given, record = pictures(prepared), Record(asked(), LIVELY, "", "", 3)
    plain = batches.shuffled(given, 16, LIVELY, UNMIXED, seed=4, epoch=1)
    for one, other in zip(plain, Views(record, None).shuffled(given, 16, 4, 1), strict=True):
        assert torch.equal(one.numbers, other.numbers)
        assert torch.equal(one.labels, other.labels)


def test_without_augmentation_a_view_is_the_picture(prepared: Path) -> None:
    given = pictures(prepared)
    record = Record(asked(), params.Augment.model_validate(STILL), "", "", 3)
    whole = torch.cat([images for images, _ in batches.in_order(given)])
    for batch in Views(record, None).shuffled(given, 16, 0, 0):
        assert torch.equal(batch.images, whole[batch.numbers])
        assert torch.equal(batch.labels, given.labels[batch.numbers])
        assert batch.advice is None


def test_blended_views_by_hand(prepared: Path) -> None:
    """Mixup: share x own + (1 - share) x partner's; cutmix: a box of the partner, as large as its label's share."""
    given, still = pictures(prepared), params.Augment.model_validate(STILL)
    whole = torch.cat([images for images, _ in batches.in_order(given)])
    everyone = torch.arange(len(given))
    certain = torch.eye(3)[given.labels]
    view = views.draw(given, still, MIXUP, 0, 0)
    assert view.partners is not None
    assert view.shares is not None
    images, labels = views.look(given, view, given.images, given.images[view.partners], everyone)
    share = view.shares[:, None]
    torch.testing.assert_close(labels, share * certain + (1 - share) * certain[view.partners])
    expected = share[..., None, None] * whole + (1 - share)[..., None, None] * whole[view.partners]
    torch.testing.assert_close(images, expected)
    assert len(view.partners.unique()) == len(given)
    assert view.shares.std() > 0.2

    view = views.draw(given, still, CUTMIX, 0, 0)
    assert view.partners is not None
    images, labels = views.look(given, view, given.images, given.images[view.partners], everyone)
    for number, partner in enumerate(view.partners.tolist()):
        top, bottom, left, right = view.boxes[number].tolist()  # pyright: ignore[reportOptionalSubscript]
        byhand = whole[number].clone()
        byhand[:, top:bottom, left:right] = whole[partner][:, top:bottom, left:right]
        assert torch.equal(images[number], byhand)
        area = (bottom - top) * (right - left) / 64
        torch.testing.assert_close(labels[number], (1 - area) * certain[number] + area * certain[partner])


def test_a_partner_looks_as_it_does_by_itself(prepared: Path) -> None:
    """What is blended is its own view, not its picture under the other's augmentation."""
    given = pictures(prepared)
    everyone = torch.arange(len(given))
    alone, view = (views.draw(given, LIVELY, mix, 0, 0) for mix in (UNMIXED, MIXUP))
    whole, _ = views.look(given, alone, given.images, None, everyone)
    assert view.partners is not None
    assert view.shares is not None
    images, _ = views.look(given, view, given.images, given.images[view.partners], everyone)
    share = view.shares[:, None, None, None]
    torch.testing.assert_close(images, share * whole + (1 - share) * whole[view.partners])


def test_views_follow_from_their_seed(prepared: Path) -> None:
    given = pictures(prepared)
    first, same, other = (
        next(Views(Record(asked(seed=seed), LIVELY, "", "", 3), None).shuffled(given, 16, 0, 0)).images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mix", [UNMIXED, MIXUP], ids=["unmixed", "mixup"])
def test_streamed_skipped_and_divided_views_are_the_same(prepared: Path, mix: params.Mix) -> None:
    record = Record(asked(mix=mix), LIVELY, "", "", 3)
    whole = list(Views(record, None).shuffled(pictures(prepared), 16, 0, 0))
    streamed = Views(record, None).shuffled(pictures(prepared, resident=0.0), 16, 0, 0)
    late = Views(record, None).shuffled(pictures(prepared), 16, 0, 0, skip=2)
    for one, other in zip(whole, streamed, strict=True):
        assert all(map(torch.equal, one[:3], other[:3]))
    for one, other in zip(whole[2:], late, strict=True):
        assert all(map(torch.equal, one[:3], other[:3]))
    halves = [Views(record, None).shuffled(pictures(prepared), 16, 0, 0, 0, Part(n, 2)) for n in range(2)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(one.images[::2], first.images)
        assert torch.equal(one.images[1::2], second.images)


# -------------------------------------------------------------------------------------------------- advice


def test_the_teacher_is_asked_in_the_precision_of_the_training(prepared: Path) -> None:
    given, network, wanted = pictures(prepared), new().eval(), asked()
    said = {
        dtype: advice.ask(network, given, wanted, LIVELY, 0, machine.Machine(torch.device("cpu"), dtype, 1.0))
        for dtype in (torch.float32, torch.bfloat16)
    }
    everyone = torch.arange(len(given))
    images, _ = views.look(given, views.draw(given, LIVELY, UNMIXED, 0, 0), given.images, None, everyone)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(said[torch.bfloat16], network(images).float(), rtol=1e-2, atol=1e-3)
    assert not torch.equal(said[torch.bfloat16], said[torch.float32])


def test_all_logits_are_kept_as_precisely_as_asked() -> None:
    logits = torch.randn(8, 5)
    assert torch.equal(advice.unpack(advice.pack(logits, asked()), 5), logits)
    rounded = advice.pack(logits, asked(precision="bfloat16"))
    assert sum(values.nbytes for values in rounded.values()) == logits.nbytes // 2
    assert torch.equal(advice.unpack(rounded, 5), logits.bfloat16().float())


def test_of_many_classes_the_highest_are_kept_and_the_chance_of_the_others() -> None:
    torch.manual_seed(0)
    logits = torch.randn(16, 1000) * 3
    kept = advice.pack(logits, asked(keep=20))
    assert sum(values.nbytes for values in kept.values()) < logits.nbytes / 20
    found, expected = advice.unpack(kept, 1000).softmax(1), logits.softmax(1)
    highest = expected.topk(20, dim=1)
    torch.testing.assert_close(found.gather(1, highest.indices), highest.values)
    torch.testing.assert_close(found.sum(1), torch.ones(16))
    rest = found.scatter(1, highest.indices, 0)
    assert rest[rest > 0].view(16, 980).std(dim=1).max() < 1e-7
    assert advice.pack(logits, asked(keep=1000)).keys() == {"logits"}


def test_the_record_says_how_large_and_how_right_it_is(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path
) -> None:
    found = ask(tmp_path / "advice", teacher, prepared, settings, asked(), LIVELY)
    assert found["views"] == 2
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "advice").iterdir())
    right = [
        (batch.advice.argmax(1) == batch.labels).float()  # pyright: ignore[reportOptionalMemberAccess]
        for epoch in range(2)
        for batch in spoken(tmp_path / "advice").shuffled(pictures(prepared), 72, 0, epoch)
    ]
    assert found["accuracy_on_views"] == pytest.approx(torch.cat(right).mean().item())


def test_no_views_is_no_work(prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path) -> None:
    found = ask(tmp_path / "advice", teacher, prepared, settings, asked(views=0), LIVELY)
    assert found["views"] == 0
    assert [path.name for path in (tmp_path / "advice").iterdir()] == ["advice.json"]


def test_an_interrupted_stage_goes_on_after_its_last_view(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = advice.save, iter(range(9))

    def dying(*arguments: object) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        plain(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(advice, "save", dying)
    with pytest.raises(OSError, match="No space left"):
        ask(tmp_path / "broken", teacher, prepared, settings, asked(views=3), LIVELY)
    torch.use_deterministic_algorithms(mode=False)
    drawn: list[int] = []
    monkeypatch.setattr(views, "draw", lambda *some, draw=views.draw: drawn.append(some[-1]) or draw(*some))
    files.remove(tmp_path / "broken")
    ask(tmp_path / "broken", teacher, prepared, settings, asked(views=3), LIVELY)
    assert drawn == [1, 2]
    monkeypatch.undo()
    (tmp_path / "other").mkdir()
    ask(tmp_path / "other/whole", teacher, prepared, settings, asked(views=3), LIVELY)
    assert files.digest(tmp_path / "broken") == files.digest(tmp_path / "other/whole")


# ------------------------------------------------------------------------------------------------- school


def enter(
    settings: params.Params, prepared: Path, teacher: Path, folder: Path, augment: params.Augment, **changes: object
) -> school.School:
    here = machine.choose(settings.compute.model_copy(update={"precision": "float32"}), 0)
    found = school.enter(prepared / "train", prepared / "val", teacher, folder, asked(**changes), augment, here)
    torch.use_deterministic_algorithms(mode=False)
    return found


def test_a_student_learns_from_views_what_it_learns_at_each_step(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path
) -> None:
    """Trained on the same views, with cached advice or with the teacher beside it, it ends with the same weights."""
    ask(tmp_path / "advice", teacher, prepared, settings, asked(), LIVELY)
    place = enter(settings, prepared, teacher, tmp_path / "advice", LIVELY)
    cached, online = new(), new()
    whole = settings.distill.training.model_copy(update={"batch_size": len(place.train), "epochs": 6, "patience": 6})
    lesson = place.lesson(cached, HINTON, whole, seed=0)
    assert lesson.guide is None
    loop.fit(cached, lesson, Run(tmp_path / "cached"), "x")
    assert lesson.views is not None
    beside = replace(lesson, views=replace(lesson.views, folder=None), guide=place.teacher)
    loop.fit(online, beside, Run(tmp_path / "online"), "x")
    assert equal(cached, online)


def test_the_control_sees_the_same_views_and_hears_nothing(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path
) -> None:
    ask(tmp_path / "advice", teacher, prepared, settings, asked(), LIVELY)
    place = enter(settings, prepared, teacher, tmp_path / "advice", LIVELY)
    lesson = place.lesson(new(), HINTON, settings.distill.training, seed=3)
    alone = place.alone(settings.distill.training, 3, place.heard(HINTON))
    assert alone.guide is None
    for one, other in zip(lesson.batches(1, 0), alone.batches(1, 0), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert (one.advice is not None, other.advice) == (True, None)


def test_another_guide_is_asked_at_each_step(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path
) -> None:
    """What the teacher said before is not what an earlier generation says."""
    ask(tmp_path / "advice", teacher, prepared, settings, asked(), LIVELY)
    place, before = enter(settings, prepared, teacher, tmp_path / "advice", LIVELY), new(seed=2)
    lesson = place.lesson(new(), HINTON, settings.distill.training, 0, before)
    assert lesson.guide is before
    assert lesson.views is None


@pytest.mark.parametrize(
    "changes", [{"guide": {"name": "itself", "generations": 1}}, {"method": {"name": "mutual"}}, {}]
)
def test_student_and_control_see_the_same_pictures_whoever_teaches(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path, changes: dict[str, dict[str, object]]
) -> None:
    """Views are for those who hear the school's teacher; its control sees what its student sees."""
    ask(tmp_path / "advice", teacher, prepared, settings, asked(), LIVELY)
    place = enter(settings, prepared, teacher, tmp_path / "advice", LIVELY)
    if "method" in changes:
        changes = {"method": changes["method"] | {"peer": SMALL.model_dump()}}
    distill = params.Distill.model_validate(settings.distill.model_dump(mode="json") | changes)
    lessons: dict[str, loop.Lesson] = {}

    def fit(_network: nn.Module, lesson: loop.Lesson, name: str) -> loop.History:
        lessons[name] = lesson
        return []

    teach(SMALL, distill, place, 3, lambda _member, seed: new(seed), fit)
    assert {lesson.views is not None for lesson in lessons.values()} == {not changes}
    for one, other in zip(lessons["student"].batches(1, 0), lessons["control"].batches(1, 0), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert other.advice is None


@pytest.mark.parametrize("what", ["teacher", "pictures", "augmentation", "kind of views", "folder", "view"])
def test_advice_of_something_else_is_refused(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path, what: str
) -> None:
    ask(tmp_path / "advice", teacher, prepared, settings, asked(), LIVELY)
    folder, train, augment = tmp_path / "advice", prepared, LIVELY
    if what == "teacher":
        network = new(seed=1)
        files.remove(teacher)
        artifact.save_float(teacher, network, SMALL, storage.load(prepared / "train").facts)
    elif what == "augmentation":
        augment = TURNING
    elif what == "folder":
        folder = tmp_path
    elif what == "view":
        (folder / advice.name(0)).write_bytes(b"half")
    elif what == "pictures":
        content = files.read_json(folder / "advice.json")
        files.write_json(folder / "advice.json", content | {"train": "0" * 64})
    said = {"folder": "is no advice", "view": "is not the file that advice.json was"}.get(what, f"another {what}")
    with pytest.raises(Refusal, match=said):
        learn(enter(settings, train, teacher, folder, augment, seed=int(what == "kind of views")), settings)
    torch.use_deterministic_algorithms(mode=False)


def learn(place: school.School, settings: params.Params) -> object:
    return next(place.lesson(new(), HINTON, settings.distill.training, 0).batches(0, 0))


def test_a_teacher_of_other_classes_or_another_order_is_refused(
    prepared: Path, settings: params.Params, teacher: Path, tmp_path: Path
) -> None:
    facts = storage.load(prepared / "train").facts
    ask(tmp_path / "advice", teacher, prepared, settings, asked(views=0), LIVELY)
    for classes in (facts.classes[::-1], facts.classes[:2]):
        files.remove(teacher)
        network: nn.Module = new() if len(classes) == 3 else new_of(len(classes))
        artifact.save_float(teacher, network, SMALL, replace(facts, classes=classes))
        with pytest.raises(Refusal, match=r"knows other classes than .*, or in another order"):
            enter(settings, prepared, teacher, tmp_path / "advice", LIVELY)
        torch.use_deterministic_algorithms(mode=False)


def new_of(classes: int) -> nn.Module:
    from stages.core.networks import families

    return families.build(SMALL, classes, 8)
