"""Which file is taken: limits as they are written, and no word of test."""

from dataclasses import replace
from typing import Any

import pytest

from stages.core import choosing, params
from stages.core.choosing import LIMITS, Candidate
from stages.core.running.errors import Refusal

FILE = Candidate("file", bytes=2_000_000, macs=3_000_000, milliseconds=4.0, joules=0.5, accuracy=0.9, drop=0.02)


def budget(**limits: float) -> params.Budget:
    return params.limits(limits, "here")


def file(name: str, **facts: Any) -> Candidate:
    return replace(FILE, name=name, **facts)


def test_every_limit_is_held_against_something() -> None:
    assert list(LIMITS) == list(params.Budget.model_fields)


@pytest.mark.parametrize(
    ("name", "kept", "missed", "beyond"),
    [
        ("megabytes", 2.0, 1.6, 0.25),
        ("macs", 3e6, 2e6, 0.5),
        ("milliseconds", 4, 3.2, 0.25),
        ("joules", 0.5, 0.4, 0.25),
        ("accuracy", 0.9, 0.91, 0.01),
        ("drop", 0.02, 0.015, 0.005),
    ],
)
def test_a_limit_is_met_to_the_last_digit_or_is_not(name: str, kept: float, missed: float, beyond: float) -> None:
    [met] = choosing.judge(FILE, budget(**{name: kept}))
    [not_met] = choosing.judge(FILE, budget(**{name: missed}))
    assert (met.passed, met.beyond) == (True, 0)
    assert not not_met.passed
    assert not_met.beyond == pytest.approx(beyond)
    assert (not_met.name, not_met.limit) == (name, missed)
    assert not_met.found == pytest.approx(kept)
    assert met.said.endswith(": passes")
    assert not_met.said.endswith(": fails")


def test_a_share_of_pictures_that_is_just_the_limit_passes() -> None:
    """A difference of two shares is no exact number: 358/359 - 355/359 is more than 3/359."""
    drop = 358 / 359 - 355 / 359
    assert drop > 3 / 359
    assert choosing.passes(file("on the limit", drop=drop), budget(drop=3 / 359))
    assert not choosing.passes(file("a picture more", drop=358 / 359 - 354 / 359), budget(drop=3 / 359))


def test_what_was_not_measured_does_not_pass() -> None:
    [line] = choosing.judge(file("no meter", joules=None), budget(joules=1))
    assert not line.passed
    assert line.found is None
    assert line.said == "energy a picture: at most 1 J, not measurable here: fails"


@pytest.mark.parametrize(
    ("name", "found", "limit", "said"),
    [
        ("drop", 0.00835655, 0.01, "at most 1 point, found 0.84 points: passes"),
        ("drop", 0.0194986, 0.015, "at most 1.5 points, found 1.9 points: fails"),
        ("drop", 0.01004, 0.01, "at most 1 point, found 1.004 points: fails"),
        ("drop", 0.00996, 0.01, "at most 1 point, found 1 point: passes"),
        ("drop", -0.0028, 0.01, "at most 1 point, found −0.28 points: passes"),
        ("accuracy", 354 / 359, 0.98, "at least 98 %, found 98.6 %: passes"),
        ("accuracy", 0.97996, 0.98, "at least 98 %, found 97.996 %: fails"),
        ("accuracy", 0.98, 0.9801, "at least 98.01 %, found 98 %: fails"),
        ("megabytes", 1.23456, 1.234, "at most 1.234 MB, found 1.235 MB: fails"),
        ("milliseconds", 1234.4, 1230, "at most 1,230 ms, found 1,234 ms: fails"),
        ("macs", 3_023_768, 3_023_767, "at most 3,023,767, found 3,023,768: fails"),
    ],
)
def test_few_digits_are_told_but_never_so_few_that_what_fails_seems_to_pass(
    name: str, found: float, limit: float, said: str
) -> None:
    fact = {"megabytes": {"bytes": round(found * 1e6)}}.get(name, {name: found})
    [line] = choosing.judge(file("told", **fact), budget(**{name: limit}))
    assert line.said.partition(": ")[2] == said


SMALL = file("small", bytes=1, milliseconds=9.0, accuracy=0.8, drop=0.1)
TWIN = file("twin", bytes=1, milliseconds=8.0, accuracy=0.8, drop=0.1)
GOOD = file("good", bytes=3, milliseconds=1.0, accuracy=0.9, drop=0.0)
LARGE = file("large", bytes=4, milliseconds=1.0, accuracy=0.9, drop=0.0)
FILES = [LARGE, SMALL, GOOD, TWIN]


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        ({"drop": 0.2}, "twin"),
        ({"accuracy": 0.5}, "twin"),
        ({"drop": 0.05}, "good"),
        ({"accuracy": 0.85, "milliseconds": 2}, "good"),
        ({"milliseconds": 100}, "good"),
        ({"megabytes": 2e-6}, "twin"),
        ({"accuracy": 0.95}, None),
    ],
)
def test_the_smallest_that_is_good_enough_or_the_best_that_fits(limits: dict[str, float], chosen: str | None) -> None:
    found = choosing.best(FILES, budget(**limits))
    assert (found.name if found else None) == chosen


@pytest.mark.parametrize(
    ("limits", "nearest"),
    [
        ({"accuracy": 0.95}, "large"),
        ({"accuracy": 0.95, "megabytes": 3.5e-6}, "good"),
        ({"milliseconds": 0.99, "megabytes": 2.9e-6}, "twin"),
        ({"accuracy": 0.95, "megabytes": 2e-6, "milliseconds": 8.5, "joules": 0.1}, "twin"),
    ],
)
def test_the_nearest_misses_fewest_limits_and_then_by_the_least(limits: dict[str, float], nearest: str) -> None:
    assert choosing.best(FILES, budget(**limits)) is None
    assert choosing.nearest(FILES, budget(**limits)).name == nearest


def metrics() -> tuple[dict[str, Any], dict[str, Any]]:
    facts = {"bytes": 10, "macs": 20, "one_thread": {"median": 3.0}, "accuracy": 0.5}
    measured = {"teacher": {**facts, "joules": None}, "quantized": {**facts, "joules": {"per_picture": 0.25}}}
    exported = {"teacher": {"bytes": 10, "accuracy": 0.9}, "quantized": {"bytes": 10, "accuracy": 0.875}}
    return {"files": measured}, exported


def test_candidates_are_what_val_and_the_benchmark_say() -> None:
    teacher, quantized = choosing.candidates(*metrics())
    assert teacher == Candidate("teacher", 10, 20, 3.0, None, 0.9, 0.0)
    assert quantized == Candidate("quantized", 10, 20, 3.0, 0.25, 0.875, 0.9 - 0.875)


@pytest.mark.parametrize(
    ("products", "limits", "chosen"),
    [
        ("exact", {"drop": 0.1}, "quantized"),
        ("saturating", {"drop": 0.1}, "quantized-portable"),
        (None, {"drop": 0.1}, "quantized"),
        ("exact", {"milliseconds": 100}, "quantized"),
        ("exact", {"accuracy": 0.88}, "quantized-portable"),
        ("saturating", {"milliseconds": 3.5}, "quantized"),
    ],
)
def test_neither_noise_of_latency_nor_of_answers_chooses_between_twins(
    products: str | None, limits: dict[str, float], chosen: str
) -> None:
    """On a machine of exact products both are the same network; one that alone keeps to the budget is taken."""
    benchmarked, exported = metrics()
    slow, fast = {"median": 3.9}, {"median": 3.1}
    saturating = products == "saturating"
    facts = benchmarked["files"].pop("quantized") | {"bytes": 5}
    twins = {
        "quantized": (fast if saturating else slow, 0.875),
        "quantized-portable": (slow if saturating else fast, 0.89),
    }
    for name, (latency, accuracy) in reversed(twins.items()):
        benchmarked["files"][name] = facts | {"one_thread": latency}
        exported[name] = {"bytes": 5, "accuracy": accuracy}
    del benchmarked["files"]["teacher"]
    best = choosing.best(
        [
            replace(one, name=f"run: {one.name}")
            for one in choosing.candidates(benchmarked | {"machine": {"integer_products": products}}, exported)
        ],
        budget(**limits),
    )
    assert best
    assert best.name == f"run: {chosen}"


def test_metrics_that_are_not_of_one_run_are_refused() -> None:
    benchmarked, exported = metrics()
    exported["quantized"]["bytes"] = 11
    with pytest.raises(Refusal, match="export wrote 11 bytes of quantized, benchmark saw 10"):
        choosing.candidates(benchmarked, exported)
    del exported["quantized"]
    with pytest.raises(Refusal, match=r"lack 'quantized': `dvc repro benchmark`"):
        choosing.candidates(benchmarked, exported)


def test_a_budget_without_a_limit_is_refused() -> None:
    with pytest.raises(Refusal, match="here limits nothing: set one of megabytes, macs"):
        budget()
