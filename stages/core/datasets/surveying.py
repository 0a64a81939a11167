"""A listing, looked at as a whole: decoded, compared, dealt out."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from stages.core import params
from stages.core.datasets import decoding, findings, likeness, splits
from stages.core.datasets.decoding import Rows, Seen
from stages.core.datasets.findings import Survey
from stages.core.datasets.likeness import Pair
from stages.core.datasets.listing import Listing
from stages.core.datasets.splits import EXCLUDED, Member, Place, Plan
from stages.core.running import progress
from stages.core.running.errors import Refusal

NAMED = 5  # broken pictures that an error names; `lightvision data check` lists them all


def survey(listing: Listing, settings: params.Prepare, seed: int, pixels: Path) -> Survey:
    """`pixels` becomes the file of all decoded pictures. Refuses what the policy does not want left out."""
    refuse_unknown_groups(listing, settings.groups)
    seen = decoding.decode(listing.items, settings.image_size, settings.fit, pixels)
    if settings.policy.broken == "stop":
        refuse_broken(listing, seen)
    contents = [one.content for one in seen]
    with closing(Rows(pixels, settings.image_size)) as images:
        pairs = likeness.near_copies(seen, images)
    groups = likeness.groups(pairs, contents) if settings.policy.near_copies == "together" else {}
    usable = [number for number, content in enumerate(contents) if content]
    members = [
        Member(contents[n], listing.items[n].label, listing.items[n].given, groups.get(contents[n], "")) for n in usable
    ]
    if settings.policy.conflicts == "stop":
        refuse_conflicts(listing, seen)
    plan = Plan(settings.val_share, settings.test_share, settings.folds, settings.fold, seed)
    assigned = splits.assign(members, listing.classes, plan, settings.policy.small_classes)
    calibrating = splits.calibration(members, assigned, settings.calibration_images, seed)
    places = [Place(EXCLUDED, "broken")] * len(seen)
    calibrates = [False] * len(seen)
    for number, place, chosen in zip(usable, assigned, calibrating, strict=True):
        places[number], calibrates[number] = place, chosen
    left_out = sum(place.split == EXCLUDED for place in places)
    if left_out:
        progress.note(f"{left_out} of {len(places)} pictures are left out; the manifest says why for each")
    return Survey(listing, seen, places, calibrates, _of_the_used(pairs, contents, places), settings.groups)


def _of_the_used(pairs: Sequence[Pair], contents: Sequence[str], places: Sequence[Place]) -> list[Pair]:
    """Of exact copies, one that is in a split stands for those that are not."""
    standing: dict[str, int] = {}
    for number, content in enumerate(contents):
        other = standing.setdefault(content, number)
        if places[other].split == EXCLUDED != places[number].split:
            standing[content] = number
    return [Pair(standing[contents[pair.first]], standing[contents[pair.second]], pair.cosine) for pair in pairs]


def class_numbers(found: Survey) -> dict[int, int]:
    """New numbers for the classes that still have pictures, by their old ones."""
    pairs = zip(found.listing.items, found.places, strict=True)
    kept = sorted({item.label for item, place in pairs if place.split != EXCLUDED})
    if len(kept) < 2:
        raise Refusal(f"{len(kept)} of {len(found.listing.classes)} classes can be learnt; at least two are needed")
    return {old: new for new, old in enumerate(kept)}


def refuse_unknown_groups(listing: Listing, groups: Sequence[str]) -> None:
    for column in groups:
        if column in findings.COLUMNS:
            raise Refusal(f"prepare.groups: {column!r} is a column of every manifest; call it otherwise in the source")
        lacking = next((item for item in listing.items if column not in item.groups), None)
        if lacking:
            told = ", ".join(lacking.groups) or "nothing further, as only a CSV does"
            raise Refusal(f"prepare.groups: no column {column!r} tells of {lacking.name}; the source tells {told}")


def refuse_broken(listing: Listing, seen: list[Seen]) -> None:
    broken = [(item.name, one.problem) for item, one in zip(listing.items, seen, strict=True) if one.problem]
    if broken:
        named = "; ".join(f"{name} ({problem})" for name, problem in broken[:NAMED])
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise Refusal(
            f"{len(broken)} of {len(seen)} pictures cannot be read: {named}{more}; "
            "mend or remove them, or set prepare.policy.broken: skip"
        )


def refuse_conflicts(listing: Listing, seen: list[Seen]) -> None:
    labels: dict[str, dict[int, str]] = {}
    for item, one in zip(listing.items, seen, strict=True):
        if one.content:
            labels.setdefault(one.content, {}).setdefault(item.label, item.name)
    conflicts = [" = ".join(names.values()) for names in labels.values() if len(names) > 1]
    if conflicts:
        more = f" and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
        raise Refusal(
            f"{len(conflicts)} pictures bear several labels: {'; '.join(conflicts[:NAMED])}{more}; "
            "correct them, or set prepare.policy.conflicts: exclude"
        )
