"""Every number of the evaluation, once more: from the probabilities that were kept, by plain arithmetic."""

import csv
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from stages import evaluate
from stages.core import answers, batches, machine, params
from stages.core.datasets import storage
from stages.core.networks import artifact, families
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from tests.conftest import CLASSES

NAMES = ("teacher", "student", "control", "pruned", "quantized")
Row = dict[str, str]


def lively(seed: int, split: storage.Split, settings: params.ResidualCNN) -> torch.nn.Module:
    """An untrained network that answers now this and now that."""
    torch.manual_seed(seed)
    network: Any = families.build(settings, len(CLASSES), split.facts.image_size)
    images = (torch.from_numpy(split.images.copy()).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    last = network.head[-1]
    with torch.no_grad():
        for _ in range(30):
            network(images)
        said = network.eval()(images)
        last.weight.mul_(2 / said.std())
        last.bias.copy_(-(network(images) - last.bias).mean(dim=0))
    return network


@pytest.fixture(scope="module")
def judge(prepared: Path, settings: params.Params) -> Callable[..., SimpleNamespace]:
    """The stage, on five networks that know nothing."""

    def run(folder: Path, control: bool = True, without: int | None = None, **changed: Any) -> SimpleNamespace:
        known = storage.load(prepared / "test")
        chosen: list[int] = np.flatnonzero(known.labels != without).tolist()
        roll = known.roll()
        cameras = [("A", "B, or C", "")[number % 3] for number in range(len(chosen))]
        names, contents = ([column[n] for n in chosen] for column in (roll.names, roll.contents))
        who = storage.Roll(names, contents, {"camera": cameras})
        storage.write(folder / "test", iter(known.images[chosen]), known.labels[chosen], known.facts, who)
        small = params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1)
        for seed, name in enumerate(NAMES):
            artifact.save_float(folder / "models" / name, lively(seed, known, small), small, known.facts)
        if not control:
            artifact.leave_out(folder / "models/nobody", "not wanted")
        paths = {name: folder / "models" / name for name in NAMES}
        evaluate.main(
            run=Run(folder / "run"),
            evaluate=settings.evaluate.model_copy(update=changed),
            compute=settings.compute,
            seed=0,
            test=folder / "test",
            **paths | ({} if control else {"control": folder / "models/nobody"}),
            metrics=folder / "evaluate.json",
            **{name: folder / f"{name}.csv" for name in ("classes", "confusion", "sure", "spoilt", "groups")},
            answers=folder / "answers",
        )
        torch.use_deterministic_algorithms(mode=False)
        found = answers.read(folder / "answers")
        numbers = files.read_json(folder / "evaluate.json")
        return SimpleNamespace(folder=folder, numbers=numbers, found=found, labels=found.labels)

    return run


@pytest.fixture(scope="module")
def judged(judge: Callable[..., SimpleNamespace], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return judge(tmp_path_factory.mktemp("judged"))


def rows(judged: SimpleNamespace, name: str, **wanted: object) -> list[Row]:
    with (judged.folder / f"{name}.csv").open() as stream:
        found = list(csv.DictReader(stream))
    return [row for row in found if all(row[column] == str(value) for column, value in wanted.items())]


def choice(judged: SimpleNamespace, name: str) -> np.ndarray:
    return judged.found.probabilities[name].argmax(axis=1)


def wilson(right: int, count: int) -> tuple[float, float]:
    z = float(stats.norm.ppf(0.975))
    centre, reach = (right + z**2 / 2) / (count + z**2), z * math.sqrt(right * (count - right) / count + z**2 / 4)
    return centre - reach / (count + z**2), centre + reach / (count + z**2)


def states(found: Any, name: str, right: int, count: int) -> None:
    told = [float(found[key]) for key in (name, f"{name}_low", f"{name}_high")]
    assert told == pytest.approx([right / count, *wilson(right, count)], abs=1e-12)


def recalls(judged: SimpleNamespace, name: str) -> dict[str, float]:
    said = choice(judged, name)
    return {CLASSES[label]: float((said[judged.labels == label] == label).mean()) for label in set(judged.labels)}


def test_the_world_is_one_in_which_something_happens(judged: SimpleNamespace) -> None:
    """Networks that all say one thing would make the tests below say nothing."""
    for name in NAMES:
        assert 0.1 < (choice(judged, name) == judged.labels).mean() < 0.9
        assert len(set(choice(judged, name))) > 1
    assert 0 < (choice(judged, "teacher") != choice(judged, "student")).sum() < len(judged.labels)


def test_what_was_judged_is_said(judged: SimpleNamespace, prepared: Path) -> None:
    numbers = judged.numbers
    assert list(numbers) == ["pictures", "test", "top", "confidence", "unseen", *NAMES]
    assert (numbers["pictures"], numbers["top"], numbers["confidence"]) == (24, 2, 0.95)
    assert numbers["unseen"] == []
    assert numbers["test"] == judged.found.test == answers.identity(storage.load(prepared / "test"))


@pytest.mark.parametrize("name", NAMES)
def test_scores_by_hand(judged: SimpleNamespace, name: str) -> None:
    chances, labels, found = judged.found.probabilities[name], judged.labels, judged.numbers[name]
    order, count = np.argsort(-chances, axis=1), len(labels)
    states(found, "accuracy", int((order[:, 0] == labels).sum()), count)
    states(found, "top_accuracy", int((order[:, :2] == labels[:, None]).any(axis=1).sum()), count)
    assert found["loss"] == pytest.approx(-np.log(chances[np.arange(count), labels]).mean(), rel=1e-5)
    f1 = []
    for label in range(3):
        both = ((order[:, 0] == label) & (labels == label)).sum()
        f1.append(2 * both / ((order[:, 0] == label).sum() + (labels == label).sum()))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))


@pytest.mark.parametrize("name", NAMES)
def test_the_worst_class_by_hand(judged: SimpleNamespace, name: str) -> None:
    found, own = judged.numbers[name]["worst_class"], recalls(judged, name)
    assert own[found["name"]] == min(own.values()) == pytest.approx(found["recall"])
    here = judged.labels == CLASSES.index(found["name"])
    assert found["pictures"] == here.sum()
    states(found, "recall", int((choice(judged, name)[here] == judged.labels[here]).sum()), int(here.sum()))
    assert {row["class"]: float(row["recall"]) for row in rows(judged, "classes", network=name)} == pytest.approx(own)


@pytest.mark.parametrize("name", NAMES)
def test_calibration_by_hand_and_as_the_table_has_it(judged: SimpleNamespace, name: str) -> None:
    chances, labels = judged.found.probabilities[name], judged.labels
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    expected = 0.0
    for number in range(15):
        here = (sure >= number / 15) & (sure < (number + 1) / 15)
        [told] = rows(judged, "sure", network=name, bin=number + 1) if here.any() else [None]
        if told:
            assert int(told["pictures"]) == here.sum()
            assert float(told["confidence"]) == pytest.approx(sure[here].mean(), abs=1e-6)
            assert (float(told["from"]), float(told["to"])) == pytest.approx((number / 15, (number + 1) / 15))
            states(told, "accuracy", int(right[here].sum()), int(here.sum()))
            expected += abs(right[here].mean() - sure[here].mean()) * here.mean()
    assert sum(int(row["pictures"]) for row in rows(judged, "sure", network=name)) == len(labels)
    assert judged.numbers[name]["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_each_network_stands_beside_its_teacher_and_its_parent(judged: SimpleNamespace) -> None:
    assert {name: list(judged.numbers[name]["against"]) for name in NAMES} == {
        "teacher": [],
        "student": ["teacher"],
        "control": ["teacher"],
        "pruned": ["teacher", "student"],
        "quantized": ["teacher", "pruned"],
    }


@pytest.mark.parametrize(("name", "other"), [("student", "teacher"), ("quantized", "pruned"), ("quantized", "teacher")])
def test_flips_by_hand(judged: SimpleNamespace, name: str, other: str) -> None:
    found, labels = judged.numbers[name]["against"][other], judged.labels
    triples = list(zip(choice(judged, name), choice(judged, other), labels, strict=True))
    states(found, "agreement", sum(own == before for own, before, _ in triples), len(triples))
    assert found["flipped"] == pytest.approx(sum(own != before for own, before, _ in triples) / len(triples))
    assert found["lost"] == sum(own != label and before == label for own, before, label in triples)
    assert found["won"] == sum(own == label and before != label for own, before, label in triples)
    drops = {label: recalls(judged, other)[label] - recalls(judged, name)[label] for label in CLASSES}
    assert found["worst_class_drop"] == pytest.approx(max(drops.values()))
    assert drops[found["worst_class"]] == pytest.approx(max(drops.values()))


def test_groups_by_hand(judged: SimpleNamespace) -> None:
    for name in NAMES:
        right = choice(judged, name) == judged.labels
        found = {row["group"]: row for row in rows(judged, "groups", network=name, column="camera")}
        assert list(found) == ["A", "B, or C", "not told"]
        for at, group in enumerate(found):
            assert int(found[group]["pictures"]) == len(right[at::3])
            states(found[group], "accuracy", int(right[at::3].sum()), len(right[at::3]))


def test_spoilt_pictures_begin_with_those_that_are_not(judged: SimpleNamespace) -> None:
    told = Counter((row["network"], row["kind"]) for row in rows(judged, "spoilt"))
    assert told == dict.fromkeys(((name, kind) for name in NAMES for kind in ("noise", "blur", "contrast")), 2)
    for name in NAMES:
        for row in rows(judged, "spoilt", network=name, severity=0):
            states(row, "accuracy", int((choice(judged, name) == judged.labels).sum()), len(judged.labels))
        means = judged.numbers[name]["robustness"]
        spoilt = {row["kind"]: float(row["accuracy"]) for row in rows(judged, "spoilt", network=name, severity=1)}
        assert means == pytest.approx(spoilt)
        assert judged.numbers[name]["robustness_mean"] == pytest.approx(sum(spoilt.values()) / 3)


def test_spoilt_accuracy_by_hand(judged: SimpleNamespace) -> None:
    """Half the contrast, in numpy, through the networks as they were saved."""
    split = storage.load(judged.folder / "test")
    pixels = split.images.astype(float)
    grey = np.floor(pixels @ (0.2989, 0.587, 0.114))
    faded = np.floor((pixels + grey.mean(axis=(1, 2))[:, None, None, None]) / 2 + 1e-6)
    seen = (faded / 255 - split.facts.mean) / split.facts.std
    for name in NAMES:
        network = artifact.load(judged.folder / "models" / name).network
        with torch.no_grad():
            said = network(torch.from_numpy(seen).float().permute(0, 3, 1, 2)).argmax(dim=1).numpy()
        [row] = rows(judged, "spoilt", network=name, kind="contrast", severity=1)
        assert float(row["amount"]) == 0.5
        states(row, "accuracy", int((said == judged.labels).sum()), len(judged.labels))


def test_pictures_are_kept_for_the_report(judged: SimpleNamespace) -> None:
    split = storage.load(judged.folder / "test")
    kept = sorted((judged.folder / "answers").glob("*.png"))
    assert len(kept) == 6
    for path in kept:
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), split.images[int(path.stem)])


def test_what_was_looked_at_is_kept_where_teacher_and_student_disagree(judged: SimpleNamespace) -> None:
    folder = judged.folder / "answers/attention"
    told = json.loads((folder / "attention.json").read_text())
    assert told["layers"] == {"teacher": "blocks", "student": "blocks"}
    assert told["reason"] == ""
    assert len(told["pictures"]) == 3
    for shown in told["pictures"]:
        number = shown["picture"]
        assert shown["label"] == CLASSES[judged.labels[number]]
        assert shown["teacher"] != shown["student"]
        for name in ("teacher", "student"):
            chances = judged.found.probabilities[name][number]
            assert shown[name] == CLASSES[chances.argmax()]
            assert shown[f"{name}_confidence"] == pytest.approx(chances.max(), abs=1e-6)
        for of in ("", "-teacher", "-student"):
            with Image.open(folder / f"{number:06}{of}.png") as picture:
                assert picture.size == (128, 128)
    assert len(list(folder.glob("*.png"))) == 9


def test_one_run_is_another(judged: SimpleNamespace, judge: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    judge(tmp_path)
    for path in [*sorted(judged.folder.glob("*.csv")), judged.folder / "evaluate.json", judged.folder / "answers"]:
        assert files.digest(path) == files.digest(tmp_path / path.name), path.name


def test_what_is_not_there_is_not_judged(
    judge: Callable[..., SimpleNamespace], tmp_path: Path, settings: params.Params
) -> None:
    """Neither a control, nor robustness, nor a class without pictures."""
    nothing = params.Robustness(noise=(), blur=(), contrast=(), jpeg=())
    judged = judge(tmp_path, control=False, without=1, robustness=nothing, attention=0)
    assert "control" not in judged.numbers
    assert "control" not in judged.found.probabilities
    assert judged.numbers["unseen"] == ["blobs"]
    assert {row["class"] for row in rows(judged, "classes")} == {"bars", "checks"}
    assert judged.numbers["teacher"]["robustness"] == {}
    assert judged.numbers["teacher"]["robustness_mean"] is None
    assert rows(judged, "spoilt") == []
    told = json.loads((tmp_path / "answers/attention/attention.json").read_text())
    assert told["pictures"] == []
    assert "evaluate.attention is 0" in told["reason"]
    own = {label: (choice(judged, "teacher")[judged.labels == label] == label).mean() for label in (0, 2)}
    assert judged.numbers["teacher"]["worst_class"]["recall"] == pytest.approx(min(own.values()))


def test_other_classes_are_refused(judged: SimpleNamespace, tmp_path: Path, settings: params.Params) -> None:
    shutil.copytree(judged.folder / "models/student", tmp_path / "student")
    path = tmp_path / "student/model.json"
    path.write_text(path.read_text().replace("blobs", "blots"))
    here = machine.choose(settings.compute, 0)
    with pytest.raises(Refusal, match="student knows other classes than the test pictures: `dvc repro`"):
        evaluate.load(tmp_path / "student", storage.load(judged.folder / "test"), here)


def test_a_network_that_answers_no_number_is_refused(prepared: Path, settings: params.Params) -> None:
    """A mean over pictures would be none either."""
    pictures = batches.on_device(storage.load(prepared / "test"), machine.choose(settings.compute, 0))
    network: Any = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    assert np.isfinite(evaluate.answered(Path("models/student"), network, pictures)).all()
    torch.nn.init.constant_(network[1].bias, torch.inf)
    with pytest.raises(Refusal, match="models/student answers what is no number to a test picture"):
        evaluate.answered(Path("models/student"), network, pictures)
