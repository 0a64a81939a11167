"""The data card says what was found, all of it, where it belongs; names are only text; it needs no network."""

import base64
import io
import re
import shutil
from collections.abc import Mapping
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from stages.core import params
from stages.core.datacard import console, page
from stages.core.datasets import findings, surveying
from stages.core.datasets.listing import Item, Listing
from stages.core.predicting import pictures
from tests.conftest import draw

HOSTILE = "<script>alert(1)</script>.png"
VOID = {"meta", "img", "br"}
OFF = dict.fromkeys(("mirror", "flip"), False) | {"shift": 0, "rotate": 0.0, "crop": 1.0, "stretch": 1.0, "erase": 0.0}


class Reader(HTMLParser):
    """The page's text by the id of the innermost section, its tags, and its pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.sections: dict[str, str] = {}
        self.tags: list[str] = []
        self.images: list[np.ndarray] = []
        self.feed(html)
        assert not self.open
        self.sections = {name: " ".join(text.split()) for name, text in self.sections.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag == "img":
            data = (given["src"] or "").removeprefix("data:image/png;base64,")
            self.images.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True)))))
        if tag not in VOID:
            self.open.append((tag, given.get("id") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        name = next((name for tag, name in reversed(self.open) if tag == "section"), "head")
        self.sections[name] = self.sections.get(name, "") + " " + data


def counts(name: str, train: int, val: int, test: int, excluded: int = 0) -> dict[str, Any]:
    return {"class": name, "train": train, "val": val, "test": test, "excluded": excluded}


def member(name: str, kind: str, split: str) -> dict[str, str]:
    return {"name": name, "class": kind, "split": split}


def found() -> tuple[dict[str, Any], dict[str, Any]]:
    """A data set with every problem, where all numbers differ."""
    details = {
        "dataset": "Säcke & co",
        "classes": [counts("apple", 5001, 1002, 1003, 4), counts("pear", 31, 6, 7, 1), counts("plum", 0, 0, 0, 2)],
        "sizes": [{"value": f"{64 + n} x {480 + n}", "pictures": 300 - n if n else 2959} for n in range(15)],
        "modes": [{"value": "RGB", "pictures": 7043}, {"value": "CMYK", "pictures": 11}],
        "excluded": {"its copies bear several labels": 4},
        "broken": [{"name": HOSTILE, "class": "pear", "reason": "it is <b>empty</b>"}],
        "conflicts": [[member("a/1.png", "apple", "excluded"), member("b/2.png", "pear", "excluded")]],
        "copies": [[member(f"a/same{n}.png", "apple", "train") for n in range(12)]],
        "near_copies": [
            {"pictures": [member("a/n1", "apple", "train"), member("b/n2", "pear", "test")], "cosine": 0.9912},
            {"pictures": [member("a/n3", "apple", "val"), member("a/n4", "apple", "val")], "cosine": 0.9987},
        ],
        "mean": [0.1111, 0.2222, 0.3333],
        "std": [0.0444, 0.0555, 0.0666],
    }
    metrics = {
        "classes": 2,
        "pictures": {"train": 5032, "val": 1008, "test": 1010, "excluded": 7},
        "unlabelled": 23,
        "calibration": 257,
        "rarest_class": 44,
        "imbalance": 159.227,
        "broken": 3,
        "copies": 13,
        "conflicting_labels": 1,
        "near_copies": 2,
        "near_copies_across_splits": 1,
        "other_files": 29,
    }
    return details, metrics


def clean() -> tuple[dict[str, Any], dict[str, Any]]:
    details, metrics = found()
    details |= {"classes": [counts("apple", 60, 20, 20), counts("pear", 60, 20, 20)], "excluded": {}}
    details |= {"sizes": [{"value": "8 x 8", "pictures": 200}], "modes": [{"value": "L", "pictures": 200}]}
    details |= {name: [] for name in ("broken", "conflicts", "copies", "near_copies")}
    metrics |= {"pictures": {"train": 120, "val": 40, "test": 40, "excluded": 0}, "rarest_class": 100, "imbalance": 1.0}
    zero = ("unlabelled", "broken", "copies", "conflicting_labels", "near_copies", "near_copies_across_splits")
    return details, metrics | dict.fromkeys((*zero, "other_files"), 0)


def read(found: tuple[Mapping[str, Any], Mapping[str, Any]], **given: Any) -> Reader:
    return Reader(render(found, **given))


def render(found: tuple[Mapping[str, Any], Mapping[str, Any]], **given: Any) -> str:
    defaults: dict[str, Any] = {"samples": {}, "augmented": [], "augment": None, "title": "A title"}
    return page.render(*found, **defaults | given)


def printed(found: tuple[Mapping[str, Any], Mapping[str, Any]], width: int = 100) -> str:
    stream = io.StringIO()
    console.show(*found, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("head", "Säcke & co : 7,057 pictures of 3 classes"),
        ("head", "train 5,032 of which 257 calibrate val 1,008"),
        ("head", "test 1,010 judges, and chooses nothing left out 7"),
        ("classes", "apple 5,001 1,002 1,003 4 pear 31 6 7 1 plum 0 0 0 2"),
        (
            "classes",
            "2 of 3 classes can be learnt. The largest has 159.227 times as many pictures as the rarest, which",
        ),
        ("classes", "Left out, unreadable 3 Left out, its copies bear several labels 4"),
        ("classes", "Pictures without a label 23 Other files, passed over 29"),
        ("pictures", "64 × 480 2,959 65 × 481 299"),
        ("pictures", "75 × 491 289 And 861 pictures of 3 other sizes."),
        ("pictures", "64 to 127 7,054 Of 7,054 pictures"),
        ("pictures", "RGB 7,043 pictures CMYK 11 pictures"),
        ("pictures", "red 0.1111 ± 0.0444 green 0.2222 ± 0.0555 blue 0.3333 ± 0.0666"),
        ("broken", f"Broken files 3 {HOSTILE} pear it is <b>empty</b>"),
        ("conflicts", "Conflicting labels 1 Each"),
        ("conflicts", "a/1.png apple, excluded b/2.png pear, excluded"),
        ("copies", "Exact copies 13"),
        ("copies", "a/same7.png apple, train and 4 more"),
        ("near", "Near copies 2 Pairs"),
        ("near", "1 of 2 pairs lie across splits"),
        ("near", "0.9912 across splits two classes a/n1 apple, train b/n2 pear, test 0.9987 a/n3 apple, val a/n4"),
    ],
)
def test_the_page_says_what_was_found(section: str, expected: str) -> None:
    assert expected in read(found()).sections[section]


def test_every_number_is_in_the_page() -> None:
    text = " ".join(read(found()).sections.values()).replace(",", "")
    details, metrics = found()
    details["sizes"] = [{"value": "", "pictures": entry["pictures"]} for entry in details["sizes"][: page.SIZES]]
    for number in {*_numbers(details), *_numbers(metrics)}:
        assert re.search(rf"(?<![\d.]){re.escape(f'{number:g}')}0*(?![\d])", text), number


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for entry in value.values() for number in _numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in _numbers(entry)]
    return [value] if isinstance(value, int | float) else []


def test_the_worst_comes_first() -> None:
    said = read(found()).sections["verdict"]
    titles = (
        "Leak between splits 1 pair of near copies is",
        "Conflicting labels 1 group of files holds",
        "Near copies of different classes In 1 pair",
        "Broken files 3 files cannot be read and are left out",
        "Classes that cannot be learnt 1 class is left out for want of pictures: plum.",
        "Few pictures 1 class has fewer than 50 usable pictures: pear (44).",
        "Imbalance The largest class has 159.2 times as many pictures as the rarest, which has 44",
        "Exact copies 13 pictures repeat",
        "Near copies 1 pair of near copies lies in one split",
        "Mixed sizes Pictures are 64 to 78 pixels wide and 480 to 494 high",
        "Unlabelled 23 pictures",
        "Other files 29",
    )
    places = [said.find(title) for title in titles]
    assert -1 not in places
    assert places == sorted(places)
    assert "Nothing was found" not in said


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"near_copies_across_splits": 1}, "Leak between splits"),
        ({"conflicting_labels": 1}, "Conflicting labels"),
        ({"broken": 1}, "Broken files"),
        ({"imbalance": 3.001}, "Imbalance"),
    ],
)
def test_one_problem_is_enough(change: dict[str, Any], title: str) -> None:
    details, metrics = clean()
    said = read((details, metrics | change)).sections["verdict"]
    assert title in said
    assert "Nothing was found" not in said


def test_clean_data_says_so_and_claims_no_more_than_was_looked_for() -> None:
    shown = read(clean())
    assert "Nothing was found that speaks against this data set. Looked for:" in shown.sections["verdict"]
    assert "Not looked for: wrong labels" in shown.sections["verdict"]
    for section in ("broken", "conflicts", "copies", "near"):
        assert "None" in shown.sections[section]
    assert "2 of 2 classes can be learnt. Each has 100 pictures." in shown.sections["classes"]
    assert "other sizes" not in shown.sections["pictures"]


def test_pictures_smaller_than_the_network_are_named_if_its_size_is_known() -> None:
    details, metrics = clean()
    assert "Upscaling" not in read((details | {"image_size": 8}, metrics)).sections["verdict"]
    said = read((details | {"image_size": 9}, metrics)).sections["verdict"]
    assert "Upscaling 200 pictures are smaller than the 9 pixels" in said
    assert "Nothing was found that speaks against" in said


def test_copies_that_are_left_out_leak_nothing() -> None:
    details, metrics = clean()
    pair = {"pictures": [member("1", "apple", "train"), member("2", "apple", "excluded")], "cosine": 0.99}
    shown = (details | {"near_copies": [pair]}, metrics | {"near_copies": 1})
    assert "across splits 1" not in read(shown).sections["near"]
    assert "ACROSS" not in printed(shown)


NAMES = (HOSTILE, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "[bold]markup[/bold]", "é鳥😀" * 60)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_text(name: str) -> None:
    details, metrics = found()
    details |= {"dataset": name, "broken": [{"name": name, "class": name, "reason": name}]}
    details |= {
        "classes": [counts(name, 60, 20, 20), counts("pear", 60, 20, 20)],
        "modes": [{"value": name, "pictures": 1}],
    }
    details |= {"excluded": {name: 3}, "copies": [[member(name, name, "train")] * 2]}
    image = np.zeros((4, 4, 3), np.uint8)
    shown = read((details, metrics), samples={name: [image]}, title=name, augment={name: 1})
    assert "script" not in shown.tags
    assert shown.tags.count("img") == 1
    for section in ("head", "classes", "pictures", "samples", "augmentation", "broken", "copies"):
        assert name in shown.sections[section]
    lines = printed((details, metrics), width=1000)
    assert lines.count(name) == 1 + 1 + 3 + 1 + 1 + 4  # data set, class, broken, mode, reason, two copies


def test_names_steer_neither_terminal_nor_line_and_can_be_written() -> None:
    details, metrics = found()
    name = "a\x1b[31m\u202e\udcff\nb"
    details["broken"] = [{"name": name, "class": name, "reason": name}]
    spelt = r"a\x1b[31m\u202e\udcff\nb"
    assert spelt in read((details, metrics), title=name).sections["broken"]
    assert render((details, metrics), samples={name: []}, title=name).encode()
    assert f"{spelt} ({spelt}): {spelt}\n" in printed((details, metrics))


def test_long_lists_are_cut_and_say_so() -> None:
    details, metrics = found()
    details["broken"] = [{"name": f"b{n:04}", "class": "apple", "reason": "no"} for n in range(page.KEPT)]
    details["conflicts"] = [[member(f"c{n:04}", "apple", "excluded")] for n in range(70)]
    details["copies"] = [[member(f"d{n:04}", "apple", "train")] for n in range(page.KEPT)]
    details["near_copies"] = [{"pictures": [member(f"e{n:04}", "a", "val")] * 2, "cosine": 0.99} for n in range(50)]
    metrics |= {"broken": 5000, "conflicting_labels": 70, "copies": 9999, "near_copies": 50}
    shown = read((details, metrics)).sections
    assert "b0049" in shown["broken"]
    assert "b0050" not in shown["broken"]
    assert "And 4,950 more; the details file has the first 1,000." in shown["broken"]
    assert "c0049" in shown["conflicts"]
    assert "c0050" not in shown["conflicts"]
    assert "And 20 more; the details file has all." in shown["conflicts"]
    assert "And at least 950 more; the details file has the first 1,000." in shown["copies"]
    assert "e0049" in shown["near"]
    assert "more" not in shown["near"]
    text = printed((details, metrics))
    assert "b0009" in text
    assert "b0010" not in text
    assert "and 4,990 more" in text
    assert "and 60 more" in text
    assert "and 40 more" in text


def test_as_many_are_kept_as_the_survey_keeps() -> None:
    assert page.KEPT == findings.LISTED


def test_of_many_classes_the_largest_and_the_smallest_are_shown() -> None:
    details, metrics = clean()
    many = [counts(f"class{n:03}", 1000 - n, 1, 1) for n in range(100)]
    few = [counts(f"class{n:03}", 1000 - n, 1, 1) for n in range(60)]
    for shown, text in (
        (read((details | {"classes": many[::-1]}, metrics)).sections["classes"], "40 classes between"),
        (printed((details | {"classes": many[::-1]}, metrics)), "... 40 classes between ..."),
    ):
        assert text in shown
        assert re.findall(r"class\d+", shown) == [f"class{n:03}" for n in (*range(30), *range(70, 100))]
    assert "classes between" not in read((details | {"classes": few}, metrics)).sections["classes"]
    assert "classes between" not in printed((details | {"classes": few}, metrics))


def test_bars_are_as_long_as_the_counts() -> None:
    details, metrics = clean()
    html = render((details | {"classes": [counts("a", 60, 20, 15, 5), counts("b", 10, 0, 0)]}, metrics))
    widths = re.findall(r'class="bar (\w+)" style="width: ([\d.]+)%"', html)
    assert widths == [("train", "60.00"), ("val", "20.00"), ("test", "15.00"), ("excluded", "5.00"), ("train", "10.00")]


def test_a_band_is_one_deviation_either_way_and_stays_in_its_track() -> None:
    details, metrics = clean()
    html = render((details | {"mean": [0.1, 0.5, 0.9], "std": [0.2, 0.2, 0.2]}, metrics))
    bands = re.findall(r'class="spread \w+" style="left: ([\d.]+)%; right: ([\d.]+)%"', html)
    assert bands == [("0.00", "70.00"), ("30.00", "30.00"), ("70.00", "0.00")]


def test_pictures_are_shown_as_they_are_and_large_ones_smaller() -> None:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (16, 16, 3), np.uint8)
    large = np.full((224, 112, 3), (10, 200, 30), np.uint8)
    rows = [[small, 255 - small, small // 2]]
    shown = read(clean(), samples={"apple": [small], "pear": [large]}, augmented=rows, augment=OFF | {"mirror": True})
    np.testing.assert_array_equal(shown.images[0], small)
    assert shown.images[1].shape == (96, 48, 3)
    assert (shown.images[1] == (10, 200, 30)).all()
    for image, expected in zip(shown.images[2:], rows[0], strict=True):
        np.testing.assert_array_equal(image, expected)
    html = render(clean(), samples={"apple": [small], "pear": [large]})
    assert re.findall(r'<img( class="small")?', html) == [' class="small"', ""]


def test_many_pictures_make_no_huge_page() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    shown = read(clean(), samples={f"class{n}": [noise] for n in range(30)}, augmented=[[noise] * 30])
    assert len(shown.images) == page.GRID + page.ACROSS
    assert "of 24 of 30 classes" in shown.sections["samples"]
    assert max(max(image.shape) for image in shown.images) == 96


def test_augmentation_in_words() -> None:
    every = {"mirror": True, "flip": True, "shift": 3, "rotate": 15.0, "crop": 0.8, "stretch": 1.3, "erase": 0.1}
    every |= {"brightness": 0.21, "contrast": 0.22, "saturation": 0.23, "hue": 0.05}
    image = np.zeros((4, 4, 3), np.uint8)
    said = read(clean(), augment=every, augmented=[[image, image]]).sections["augmentation"]
    for words in (
        *("mirrored left and right", "upside down", "up to 3 px", "up to 15°", "no less than 80 %", "up to 1.3×"),
        *("brightness changed by up to 21 %", "contrast changed by up to 22 %", "saturation changed by up to 23 %"),
        *("hue turned by up to 5 %", "erased from 10 % of the pictures"),
    ):
        assert words in said
    alone = page.augmentation(OFF | {"rotate": 10.0})
    assert alone == ["rotated by up to 10° either way"]


def test_no_augmentation_says_so() -> None:
    assert "once its settings are known" in read(clean()).sections["augmentation"]
    assert "Nothing is on" in read(clean(), augment={}).sections["augmentation"]
    assert "Nothing is on" in read(clean(), augment=OFF).sections["augmentation"]
    assert "No pictures of it were made" in read(clean(), augment=OFF | {"flip": True}).sections["augmentation"]


def test_the_page_needs_no_network_and_runs_nothing() -> None:
    html = render(found(), samples={"apple": [np.zeros((4, 4, 3), np.uint8)]}, augment=OFF | {"flip": True})
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[\w+/=]+", "", html))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html
    assert not {"script", "link", "iframe", "object"} & set(Reader(html).tags)


@pytest.mark.parametrize(
    "expected",
    [
        "Säcke & co: 7,057 pictures of 3 classes, 2 of them usable",
        "train 5,032, val 1,008, test 1,010, excluded 7",
        "257 of train calibrate; largest to rarest class 159.227 to 1",
        "Leak between splits: 1 pair",
        "Sizes: 64 x 480 (2,959), ",
        "73 x 489 (291), and 1,440 pictures of other sizes",
        "Modes: RGB (7,043), CMYK (11)",
        "Left out: 4, its copies bear several labels",
        "Broken files: 3",
        f"{HOSTILE} (pear): it is <b>empty</b>",
        "a/1.png (apple, excluded) = b/2.png (pear, excluded)",
        "a/same3.png (apple, train) = 8 more",
        "Near copies: 2",
        "ACROSS SPLITS 0.9912 a/n1 (apple, train) = b/n2 (pear, test)",
        "  0.9987 a/n3 (apple, val) = a/n4 (apple, val)",
        "Unlabelled: 23",
        "Other files: 29",
    ],
)
def test_the_console_says_the_same(expected: str) -> None:
    assert expected in printed(found())


def test_the_console_counts_by_class() -> None:
    lines = [line.split() for line in printed(found()).splitlines()]
    for row in (["apple", "5,001", "1,002", "1,003", "4"], ["pear", "31", "6", "7", "1"], ["plum", "0", "0", "0", "2"]):
        assert row in lines
    assert "Nothing was found" in printed(clean())
    assert "Nothing was found" not in printed(found())


def test_planted_problems_are_found_and_shown(tmp_path: Path, settings: params.Params) -> None:
    generator = np.random.default_rng(0)
    for label, name in enumerate(("bars", "blobs")):
        (tmp_path / name).mkdir()
        for number in range(12 + 30 * label):
            Image.fromarray(draw(label, generator)).resize((20 + label, 20)).save(tmp_path / name / f"{number:02}.png")
    shutil.copy(tmp_path / "bars" / "00.png", tmp_path / "blobs" / "disputed.png")
    shutil.copy(tmp_path / "blobs" / "01.png", tmp_path / "blobs" / "twin.png")
    (tmp_path / "bars" / HOSTILE.replace("/", "-")).write_bytes(b"")
    classes = ("bars", "blobs")
    items = tuple(
        Item(f"{name}/{path.name}", label, partial(pictures.read, path))
        for label, name in enumerate(classes)
        for path in sorted((tmp_path / name).iterdir())
    )
    policy = params.Policy(broken="skip", conflicts="exclude", small_classes="exclude", near_copies="report")
    prepare = settings.prepare.model_copy(update={"policy": policy})
    survey = surveying.survey(Listing("planted", classes, items, ("p.png",), 2), prepare, 0, tmp_path / "pixels")
    facts = findings.details(survey) | {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}, findings.metrics(survey)
    shown = read(facts).sections
    assert "planted : 57 pictures of 2 classes" in shown["head"]
    assert "Broken files 1 bars/<script>alert(1)<-script>.png bars it is empty" in shown["broken"]
    assert "bars/00.png bars, excluded blobs/disputed.png blobs, excluded" in shown["conflicts"]
    assert re.search(r"blobs/01.png blobs, (\w+) blobs/twin.png blobs, \1", shown["copies"])
    assert "21 × 20 43 20 × 20 13" in shown["pictures"]
    assert "Imbalance The largest class has 3.9 times" in shown["verdict"]
    assert "bars/00.png (bars, excluded) = blobs/disputed.png (blobs, excluded)" in printed(facts)
