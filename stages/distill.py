"""A small network learns from a teacher; its twins, same start and same lessons, learn from the labels alone."""

import torch
from torch import nn

from stages.core import counting, machine, params, weights
from stages.core.networks import artifact
from stages.core.running import journal
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.schooling import classes, school, verdict
from stages.core.schooling.classes import Class
from stages.core.schooling.school import School
from stages.core.schooling.shelf import Shelf
from stages.core.training import curves, loop
from stages.core.training.loop import History, Lesson


def main(
    run: Run,
    distill: params.Distill,
    advise: params.Advise,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    val: Input,
    teacher: Input,
    advice: Input,
    student: Output,
    control: Output,
    companions: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = school.enter(train, val, teacher, advice, advise, augment, machine.choose(compute, seed))
    shelf = Shelf(student, control, companions)
    listened = verdict.taught_by(distill) in ("teacher", "nobody")
    histories: dict[str, History] = {}
    if isinstance(distill.student, params.AsTeacher):
        card = here.guide.card
        shelf.keep(Class(here.teacher), card.architecture, here.facts, card.origin, teacher)
        found = verdict.nothing_learnt(loop.untrained(here.teacher, here.val), distill)
    else:
        origin: dict[str, str] = {}
        first = teach(distill.student, distill, here, seed, 0, run, origin)
        lessons = [first.histories]  # of the other classes only these are needed, and no network stays in memory
        for number in range(1, distill.seeds):
            lessons.append(teach(distill.student, distill, here, seed, number, run, origin).histories)
        shelf.keep(first, distill.student, here.facts, origin, teacher if listened else None)
        for number, one in enumerate(lessons):
            histories |= {loop.numbered(name, number): rows for name, rows in one.items()}
        found = verdict.compare(first, lessons, seed, distill, here)
    curves.write(history, histories)
    run.tell(verdict=found["verdict"], taught_by=found["taught_by"])
    network = artifact.load(student).network
    macs = counting.multiply_accumulates(network, here.facts.image_size)
    run.metrics(metrics, found | {"parameters": counting.parameters(network), "macs": macs})


def teach(
    wanted: params.Member,
    distill: params.Distill,
    here: School,
    seed: int,
    number: int,
    run: Run,
    origin: dict[str, str],
) -> Class:
    """The class with that number has a seed of its own; `origin` is told where its networks' weights came from."""

    def begin(member: params.Member, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        begun = weights.start(member, distill.weights, here.facts, journal.home())
        origin.update(begun.origin)
        return here.machine.place(begun.network)

    def fit(network: nn.Module, lesson: Lesson, name: str) -> History:
        return loop.fit(network, lesson, run, loop.numbered(name, number))

    return classes.teach(wanted, distill, here, seed + number, begin, fit)
