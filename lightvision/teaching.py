"""What a teacher costs a student's epoch: nobody asked, asked once about views, asked at each step.

One teacher, trained first, and in each round three students of one seed: the same start, order and pictures' number.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lightvision.learning import Contest, compute, lesson_of, measured
from lightvision.loading import AUGMENT, CONFIDENCE, UNMIXED
from stages.core import advice, evaluation, hardware, machine, params, statistics
from stages.core.advice import Record, Views
from stages.core.machine import Machine
from stages.core.networks import families
from stages.core.networks.artifact import Card, Model
from stages.core.running import files, progress
from stages.core.running.journal import Run
from stages.core.schooling.school import School
from stages.core.training import loop
from stages.core.training.loop import Lesson

HINTON = params.Hinton(name="hinton", temperature=4.0, alpha=0.9)
LISTENING = ("cached", "online")


@dataclass(frozen=True)
class Result:
    seconds: float  # of an epoch in the middle
    accuracy: float


def compare(contest: Contest, student: params.Member, views: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """In turns, and each round in another order of turns, since shared machines change their pace."""
    here = machine.choose(compute(contest.precision), seed=0)
    school, accuracy, asking = _open(contest, views, here, scratch)
    training = lesson_of(contest, here, 0).settings
    results: dict[str, list[Result]] = {name: [] for name in ("alone", *LISTENING)}
    for seed in progress.track(range(rounds), "rounds", rounds):
        torch.manual_seed(seed)
        start = families.build(student, len(school.facts.classes), school.facts.image_size)
        names = list(results)
        for name in names[seed % len(names) :] + names[: seed % len(names)]:
            network = copy.deepcopy(start)
            folder = scratch / f"{name}-{seed}"
            loop.fit(network, _lesson(name, school, network, training, seed), Run(folder), name)
            seconds = measured(folder, "seconds")
            answers = evaluation.logits(network, school.val)
            found = evaluation.accuracy(answers, school.val.labels)
            results[name].append(Result(median(seconds[1:] or seconds), found))
    facts = {
        "teacher": contest.network.model_dump(mode="json"),
        "student": student.model_dump(mode="json"),
        "learnt": len(contest.learnt),
        "held_out": len(contest.held_out),
        "epochs": contest.epochs,
        "views": views,
        "precision": str(here.precision).removeprefix("torch."),
        "teacher_accuracy": accuracy,
        "seconds_to_ask_about_a_view": asking,
    }
    return facts | _told(results) | {"rounds": rounds, "device": here.describe(), "machine": hardware.describe()}


def _open(contest: Contest, views: int, here: Machine, scratch: Path) -> tuple[School, float, float]:
    """With a teacher that has learnt, and has been asked."""
    lesson, facts = lesson_of(contest, here, 0), contest.split.facts
    torch.manual_seed(0)
    network = families.build(contest.network, len(facts.classes), facts.image_size)
    loop.fit(network, lesson, Run(scratch / "teacher"), "teacher")
    accuracy = evaluation.accuracy(evaluation.logits(network, lesson.val), lesson.val.labels)
    wanted = params.Advise(views=views, mix=UNMIXED, keep=None, precision="bfloat16", seed=0)
    seconds, digests = list[float](), list[str]()
    for number in range(views):
        began = time.perf_counter()
        said = advice.ask(network.eval(), lesson.train, wanted, AUGMENT, number, here)
        advice.save(scratch / advice.name(number), said, wanted)
        digests.append(files.digest(scratch / advice.name(number)))
        seconds.append(time.perf_counter() - began)
    spoken = Views(Record(wanted, AUGMENT, "", "", len(facts.classes), tuple(digests)), scratch)
    model = Model(network, Card(contest.network, facts))
    return School(facts, lesson.train, lesson.val, model, spoken, AUGMENT, here), accuracy, median(seconds)


def _lesson(name: str, school: School, network: torch.nn.Module, training: params.Training, seed: int) -> Lesson:
    if name == "alone":
        return school.alone(training, seed, views=None)
    return (school if name == "cached" else replace(school, views=None)).lesson(network, HINTON, training, seed)


def _told(results: Mapping[str, list[Result]]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    alone = np.array([result.seconds for result in results["alone"]])
    for name, found in results.items():
        seconds, accuracies = [result.seconds for result in found], [result.accuracy for result in found]
        facts[f"{name}_seconds_an_epoch"] = median(seconds)
        facts[f"{name}_accuracy"] = float(np.mean(accuracies))
        facts[f"{name}_accuracy_sd"] = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
        facts[f"{name}_rounds"] = {"seconds_an_epoch": seconds, "accuracy": accuracies}
    for name in LISTENING:
        ratios = np.array([result.seconds for result in results[name]]) / alone
        low, high = statistics.median_interval(ratios, CONFIDENCE)
        facts |= {f"{name}_costs": float(np.median(ratios)), f"{name}_costs_low": low, f"{name}_costs_high": high}
    pairs = zip(results["cached"], results["online"], strict=True)
    apart = [one.accuracy - other.accuracy for one, other in pairs]
    facts["cached_less_online_accuracy"] = float(np.mean(apart))
    interval = statistics.mean_interval(apart, CONFIDENCE)
    return facts | (dict(zip(("apart_low", "apart_high"), interval, strict=True)) if interval else {})
