"""All that learns with one seed: the student, its control, and whoever learns along."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from stages.core import params
from stages.core.schooling.school import School
from stages.core.training.loop import History, Lesson

OTHERS = 1_000_003  # those who learn along begin with other weights than the student

Begin = Callable[[params.Member, int], nn.Module]  # a network as it begins with a seed
Fit = Callable[[nn.Module, Lesson, str], History]


@dataclass
class Class:
    student: nn.Module
    control: nn.Module | None = None
    companions: dict[str, tuple[params.Member, nn.Module]] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    generations: int = 0


def teach(wanted: params.Member, distill: params.Distill, school: School, seed: int, begin: Begin, fit: Fit) -> Class:
    """The lesson is written before anything learns, so that what it refuses costs nobody's training."""
    found = Class(begin(wanted, seed), begin(wanted, seed) if distill.control else None)
    itself = isinstance(distill.guide, params.Itself)
    lesson = school.lesson(
        found.student,
        distill.method,
        distill.training,
        seed,
        guide=found.control if itself else None,
        begin=lambda member: begin(member, seed + OTHERS),
    )
    alone = school.alone(distill.training, seed, lesson.views)
    if found.control is not None:
        found.histories["control"] = fit(found.control, alone, "control")
    if isinstance(distill.guide, params.Itself):
        _generations(found, wanted, distill, distill.guide.generations, school, seed, begin, fit)
        return found
    found.histories["student"] = fit(found.student, lesson, "student")
    if isinstance(distill.method, params.Mutual):
        member = distill.method.peer
        found.companions["peer"] = member, lesson.objective.peers()[0]
        if distill.control:
            peer = begin(member, seed + OTHERS)
            found.companions["peer-control"] = member, peer
            found.histories["peer-control"] = fit(peer, alone, "peer-control")
    return found


def _generations(
    found: Class,
    wanted: params.Member,
    distill: params.Distill,
    count: int,
    school: School,
    seed: int,
    begin: Begin,
    fit: Fit,
) -> None:
    """Furlanello et al. 2018, born again: each learns from the one before, and the first of them from the control."""
    guide, found.generations = found.control, count
    for number in range(1, count + 1):
        network = begin(wanted, seed + OTHERS * number)
        name = "student" if number == count else f"generation-{number}"
        lesson = school.lesson(network, distill.method, distill.training, seed, guide)
        found.histories[name] = fit(network, lesson, name)
        if number == count:
            found.student = network
        else:
            found.companions[name] = wanted, network
        guide = network
