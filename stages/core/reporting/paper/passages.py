"""What each section of the paper says, in the report's own words, and the pictures it shows."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stages.core import words
from stages.core.reporting.attention import Looking, View
from stages.core.reporting.examples import Example, Failure
from stages.core.reporting.paper.blocks import Block, Code, Facts, Heading, Picture, Pictures, Text
from stages.core.reporting.recommendation import Recommendation
from stages.core.reporting.sheets import Verdict

Content = Mapping[str, Any]
Passage = Callable[[Content], Iterator[Block]]

CLASSES = 24  # names
FAILURES = 16  # pictures, in rows of eight
LOOKED_AT = 6  # pictures with two maps each, three in a row


def subtitle(content: Content) -> str:
    found = content["found"]
    told = content["dataset"], words.plural(found.prepared.classes, "class"), f"seed {content['seed']}"
    return ", ".join((*told, words.plural(found.evaluated.pictures, "test picture")))


def abstract(content: Content) -> list[str]:
    """The page's first screen."""
    taken: Recommendation = content["recommended"]
    limits = [words.sentence(line.said) for line in taken.lines]
    told = [f"{content['headline']}.", taken.reason, *limits, content["against_teacher"], content["caution"]]
    return list(filter(None, [*told, content["noise"]]))


def method(content: Content) -> Iterator[Block]:
    found, models = content["found"], {link.name: link.detail for link in content["chain"]}
    splits = ", ".join(f"{split} {words.whole(count)}" for split, count in found.prepared.pictures.items())
    facts = {
        "Pictures": f"{splits}; {words.whole(found.prepared.calibration)} of train calibrate",
        "Size": f"{content['image_size']} × {content['image_size']} pixels",
        "Classes": _first([row.label for row in content["tables"]["classes"].rows]),
        "Teacher": models["teacher"],
        "Student": models["student"],
        "Distillation": content["teaching"],
        "Advice": found.distilled.advice,
        "Pruning": content["pruning"]["asked"],
        "Quantization": content["quantization"]["asked"],
        "Recovery": content["quantization"]["recovery"],
        "Seed": str(content["seed"]),
    }
    yield Facts({name: fact for name, fact in facts.items() if fact})


def _first(names: Sequence[str]) -> str:
    more = f", … and {len(names) - CLASSES:,} more, see tables/classes.csv" if len(names) > CLASSES else ""
    return ", ".join(names[:CLASSES]) + more


def results(content: Content) -> Iterator[Block]:
    fronts = "; ".join(f"by {cost} {', '.join(names)}" for cost, names in content["fronts"].items())
    yield Text(
        f"Intervals hold at {content['level']} for networks, at {content['file_level']} for files. On the Pareto "
        f"front, where nothing is better in one respect without being worse in the other: {fronts}. The front is that "
        "of the dots: where bars overlap, it may be another."
    )


def comparisons(content: Content) -> Iterator[Block]:
    if content["against_teacher"]:
        yield Text(content["against_teacher"])


def learning(content: Content) -> Iterator[Block]:
    yield Text(
        "A dot marks the epoch that was kept: the best on val. Losses of different objectives cannot be compared."
    )
    for lesson in content["lessons"]:
        yield Text(lesson.note, strong=lesson.heading)


def distillation(content: Content) -> Iterator[Block]:
    word, reason = content["distillation"]
    yield Text(reason, strong=word)
    for said in filter(None, (content["pair_on_test"], content["goes_on"])):
        yield Text(said)


def pruning(content: Content) -> Iterator[Block]:
    yield from _verdicts(content["pruning"]["verdicts"])


def quantization(content: Content) -> Iterator[Block]:
    yield from _verdicts(content["quantization"]["verdicts"])
    if content["quantization"]["flowing"]:
        yield Text(content["quantization"]["flowing"])


def _verdicts(found: Sequence[Verdict]) -> Iterator[Block]:
    for verdict in found:
        yield Text(verdict.reason, strong=verdict.word)


def files(content: Content) -> Iterator[Block]:
    said = " ".join(filter(None, (content["gate"]["conversions"], content["gate"]["portable"])))
    if said:
        yield Text(said)


def judged(content: Content) -> Iterator[Block]:
    yield Text("Confidence that can be believed lies on the diagonal; a dot's area is its share of the pictures.")


def classes(content: Content) -> Iterator[Block]:
    """Pictures of the commonest mistakes first, then others that were kept."""
    yield Text(content["worst_class"])
    failures: list[Failure] = content["failures"]
    shown = [*(one for failure in failures for one in failure.pictures), *content["examples"]][:FAILURES]
    if shown:
        yield Text("Mistakes first, in a frame, then what the quantized network was least sure of.", strong="Pictures")
        yield Pictures([_example(one) for one in shown], 8, content["small"])


def _example(one: Example) -> Picture:
    told = [f"{one.answer}, {one.confidence}", f"actually {one.label}" if one.mistake else ""]
    return Picture(f"{one.number:06}.png", _png(one.source), list(filter(None, told)), one.mistake)


def looking(content: Content) -> Iterator[Block]:
    found: list[Looking] = content["looking"]
    if content["why_not_looking"]:
        yield Text(words.sentence(content["why_not_looking"]))
    if found:
        layers = "; ".join(f"{name}: {layer}" for name, layer in content["layers_looked_at"].items() if layer)
        yield Text(f"Grad-CAM (Selvaraju et al. 2017) on test pictures where teacher and student disagree. {layers}.")
        yield Pictures([image for one in found[:LOOKED_AT] for image in _looked(one)], 9, content["small"])


def _looked(one: Looking) -> Iterator[Picture]:
    yield Picture(f"{one.number:06}-seen.png", _png(one.source), [f"actually {one.label}"], warning=False)
    for view in one.views:
        yield _view(one.number, view)


def _view(number: int, view: View) -> Picture:
    told = [view.name, f"{view.answer}, {view.confidence}"]
    return Picture(f"{number:06}-{view.name}.png" if view.source else "", _png(view.source), told, not view.right)


def _png(source: str) -> bytes:
    """The page carries its pictures as text."""
    return base64.b64decode(source.partition(",")[2])


def nothing(_: Content) -> Iterator[Block]:
    yield from ()


def benchmark(content: Content) -> Iterator[Block]:
    machine = {**content["machine"], "integer products": content["products"]}
    yield Text(f"{'; '.join(f'{name} {value}' for name, value in machine.items())}.", strong="Machine")
    yield Text(" ".join(map(words.sentence, content["measured"])))


def origin(content: Content) -> Iterator[Block]:
    found = content["origin"]
    yield Text(f"{found.code} {found.locked}")
    yield Facts({name: digest for name, digest in content["digests"].items() if digest})
    yield Text("Digests (SHA-256) of each model's card, which names the digest of its weights, and of the file.")
    yield Facts({link.name: f"{link.digest}  {link.detail}" for link in content["chain"]})
    if found.commands:
        yield Heading("Built again", level=2)
        yield Code("\n\n".join(f"# {brings}\n{command}" for command, brings in found.commands))
