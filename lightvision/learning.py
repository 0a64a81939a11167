"""Pictures a second and accuracy of our loop, of a plain script and of timm's parts: one network, recipe and machine.

Each trains the same network from the same weights with SGD, random crops and mirroring, on the same pictures, and is
judged by the same evaluator on the same held-out fifth. The ceiling is the network alone: forward and backward over and
over on one batch that is already there, in our precision.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lightvision.loading import AUGMENT, CONFIDENCE, SMALLEST_CROP, STRETCH, UNMIXED
from stages.core import batches, evaluation, hardware, machine, params, statistics
from stages.core.datasets.storage import Split
from stages.core.machine import Machine
from stages.core.networks import families
from stages.core.objectives import building
from stages.core.running import progress
from stages.core.running.journal import Run
from stages.core.training import loop, schedules
from stages.core.training.loop import Lesson

HELD_OUT = 5  # every fifth picture
SGD = params.SGD(name="sgd", rate=0.1, momentum=0.9, weight_decay=5e-4)
WARM_UP_EPOCHS = 1


@dataclass(frozen=True)
class Contest:
    folder: Path
    split: Split  # the same pictures, prepared
    network: params.Network
    precision: str
    epochs: int
    batch_size: int
    workers: int

    @property
    def learnt(self) -> list[int]:
        return [n for n in range(len(self.split)) if n % HELD_OUT]

    @property
    def held_out(self) -> list[int]:
        return [n for n in range(len(self.split)) if not n % HELD_OUT]

    @property
    def steps(self) -> int:
        return batches.batches_per_epoch(len(self.learnt), self.batch_size)


@dataclass(frozen=True)
class Result:
    pace: float  # pictures a second, of an epoch in the middle
    accuracy: float


Contender = Callable[[Contest, nn.Module, Lesson, int, Path], float]


def compare(contest: Contest, rounds: int, scratch: Path) -> dict[str, Any]:
    """In turns, a seed each round; a pace is the median over all epochs but the first, in which workers start.

    The ceiling is taken just before ours and just after, since shared machines change their pace.
    """
    here = machine.choose(compute(contest.precision), seed=0)
    results: dict[str, list[Result]] = {name: [] for name in CONTENDERS}
    ceilings: list[float] = []
    for seed in progress.track(range(rounds), "rounds", rounds):
        torch.manual_seed(seed)
        start = families.build(contest.network, len(contest.split.facts.classes), contest.split.facts.image_size)
        lesson = lesson_of(contest, here, seed)
        beside = [ceiling(contest, copy.deepcopy(start), lesson)]
        for name, train in CONTENDERS.items():
            network = here.place(copy.deepcopy(start))
            pace = train(contest, network, lesson, seed, scratch / f"{name}-{seed}")
            if train is ours:
                beside.append(ceiling(contest, copy.deepcopy(start), lesson))
            answers = evaluation.logits(network, lesson.val)
            results[name].append(Result(pace, evaluation.accuracy(answers, lesson.val.labels)))
        ceilings.append(sum(beside) / len(beside))
    return _told(contest, here, results, ceilings)


def ceiling(contest: Contest, network: nn.Module, lesson: Lesson) -> float:
    """As many steps as an epoch has, after two that do not count."""
    here = lesson.machine
    here.place(network).train()
    stream = batches.shuffled(lesson.train, contest.batch_size, AUGMENT, UNMIXED, seed=0, epoch=0)
    images, labels, *_ = next(stream)
    stream.close()
    for count in (2, contest.steps):
        _wait(here)
        began = time.perf_counter()
        for _ in range(count):
            with here.autocast():
                loss = functional.cross_entropy(network(images).float(), labels)
            network.zero_grad(set_to_none=True)
            loss.backward()
        _wait(here)
    return contest.steps * contest.batch_size / (time.perf_counter() - began)


def ours(contest: Contest, network: nn.Module, lesson: Lesson, _seed: int, scratch: Path) -> float:
    loop.fit(network, lesson, Run(scratch), "ours")
    paces = measured(scratch, "pictures_per_second")
    return median(paces[1:] or paces)


def measured(folder: Path, what: str) -> list[float]:
    """Of each epoch, as our loop told it in its journal."""
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [event["values"][what] for event in events if event["event"] == "step"]


def plain(contest: Contest, network: nn.Module, lesson: Lesson, seed: int, _scratch: Path) -> float:
    """As tutorials and most projects do it: float32, a DataLoader, and a look at the loss in each step."""
    facts, here = contest.split.facts, lesson.machine
    seen = transforms.Compose(
        [
            transforms.RandomResizedCrop(facts.image_size, (SMALLEST_CROP, 1), (1 / STRETCH, STRETCH)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(list(facts.mean), list(facts.std)),
        ]
    )
    loader = DataLoader(
        Subset(ImageFolder(contest.folder, seen), contest.learnt),
        batch_size=contest.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=contest.workers,
        persistent_workers=contest.workers > 0,
        pin_memory=here.device.type == "cuda",
    )
    optimizer = torch.optim.SGD(
        network.parameters(), SGD.rate, momentum=SGD.momentum, nesterov=True, weight_decay=SGD.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _shares(contest))
    criterion = nn.CrossEntropyLoss()
    torch.manual_seed(seed)

    def epoch() -> int:
        network.train()
        total = 0.0
        for images, labels in loader:
            images, labels = images.to(here.device, non_blocking=True), labels.to(here.device, non_blocking=True)
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        return len(loader) * contest.batch_size

    return _paced(epoch, contest.epochs, here)


def of_timm(contest: Contest, network: nn.Module, lesson: Lesson, seed: int, _scratch: Path) -> float:
    """The parts that timm's train script puts together, in its order, with mixed precision as it has it."""
    from timm.data import create_loader  # pyright: ignore[reportPrivateImportUsage]
    from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]

    facts, here = contest.split.facts, lesson.machine
    dataset: Any = _Chosen(ImageFolder(contest.folder), contest.learnt)
    loader = create_loader(
        dataset,
        input_size=(3, facts.image_size, facts.image_size),
        batch_size=contest.batch_size,
        is_training=True,
        use_prefetcher=here.device.type == "cuda",
        scale=(SMALLEST_CROP, 1),
        ratio=(1 / STRETCH, STRETCH),
        color_jitter=0.0,
        interpolation="bilinear",
        mean=facts.mean,
        std=facts.std,
        num_workers=contest.workers,
        pin_memory=here.device.type == "cuda",
        device=here.device,
    )
    optimizer = create_optimizer_v2(
        network, opt="sgd", lr=SGD.rate, momentum=SGD.momentum, weight_decay=SGD.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _shares(contest))
    criterion = nn.CrossEntropyLoss()
    torch.manual_seed(seed)

    def epoch() -> int:
        network.train()
        for images, labels in loader:
            images, labels = images.to(here.device), labels.to(here.device)
            with here.autocast():
                loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        return len(loader) * contest.batch_size

    return _paced(epoch, contest.epochs, here)


CONTENDERS: Mapping[str, Contender] = {"ours": ours, "plain script": plain, "timm": of_timm}


class _Chosen:
    """Some pictures of a folder, in the form that timm's loader sets its transform on."""

    def __init__(self, folder: ImageFolder, chosen: list[int]) -> None:
        self._folder, self._chosen, self.transform = folder, chosen, None

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        image, label = self._folder[self._chosen[place]]
        return self.transform(image) if self.transform else image, label


def lesson_of(contest: Contest, here: Machine, seed: int) -> Lesson:
    """The prepared split in two, as the stages hold it."""
    train, val = (
        batches.on_device(Split(contest.split.facts, contest.split.images[rows], contest.split.labels[rows]), here)
        for rows in (contest.learnt, contest.held_out)
    )
    training = params.Training(
        epochs=contest.epochs,
        batch_size=contest.batch_size,
        accumulate=1,
        optimizer=SGD,
        schedule=params.Cosine(name="cosine", warm_up_epochs=WARM_UP_EPOCHS),
        patience=contest.epochs,
        clip_gradient=None,
        average=None,
        mix=UNMIXED,
        on_nan=params.Fail(name="fail"),
    )
    objective = building.labels_alone()
    return Lesson(train, val, objective, training, AUGMENT, here, seed)


def _shares(contest: Contest) -> Callable[[int], float]:
    """Our schedule, for loops that are not ours."""
    settings = params.Cosine(name="cosine", warm_up_epochs=WARM_UP_EPOCHS)
    last = contest.steps * contest.epochs - 1

    def share(step: int) -> float:
        return schedules.share(settings, schedules.Moment(min(step, last), contest.steps, contest.epochs, []))

    return share


def _paced(epoch: Callable[[], int], epochs: int, here: Machine) -> float:
    def paces() -> Iterator[float]:
        for _ in range(epochs):
            began = time.perf_counter()
            count = epoch()
            _wait(here)
            yield count / (time.perf_counter() - began)

    found = list(paces())
    return median(found[1:] or found)


def _wait(here: Machine) -> None:
    if here.device.type == "cuda":
        torch.cuda.synchronize(here.device)


def compute(precision: str) -> params.Compute:
    return params.Compute(
        device="auto",
        precision=precision,  # pyright: ignore[reportArgumentType]
        compile="off",
        deterministic=False,
        processes=1,
        threads=0,
        resident=0.5,
    )


def _told(
    contest: Contest, here: Machine, results: Mapping[str, list[Result]], ceilings: list[float]
) -> dict[str, Any]:
    paces = {name: np.array([result.pace for result in found]) for name, found in results.items()}
    ratios = {"of_the_ceiling": paces["ours"] / np.array(ceilings)}
    ratios |= {f"times_{name.replace(' ', '_')}": paces["ours"] / paces[name] for name in paces if name != "ours"}
    facts: dict[str, Any] = {
        "network": contest.network.model_dump(mode="json"),
        "learnt": len(contest.learnt),
        "held_out": len(contest.held_out),
        "epochs": contest.epochs,
        "workers": contest.workers,
        "precision": str(here.precision).removeprefix("torch."),
        "ceiling_pictures_per_second": float(np.median(ceilings)),
        "ceiling_rounds": ceilings,
    }
    for name, found in results.items():
        accuracies, key = [result.accuracy for result in found], name.replace(" ", "_")
        facts[f"{key}_pictures_per_second"] = float(np.median(paces[name]))
        facts[f"{key}_accuracy"] = float(np.mean(accuracies))
        facts[f"{key}_accuracy_sd"] = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
        facts[f"{key}_rounds"] = {"pictures_per_second": paces[name].tolist(), "accuracy": accuracies}
    for name, values in ratios.items():
        low, high = statistics.median_interval(values, CONFIDENCE)
        facts |= {name: float(np.median(values)), f"{name}_low": low, f"{name}_high": high}
    return facts | {"rounds": len(ceilings), "device": here.describe(), "machine": hardware.describe()}
