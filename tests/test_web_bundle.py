"""The page answers as ONNX Runtime and Pillow do, and loads nothing from elsewhere."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lightvision import bundle
from lightvision.bundles import make_web
from lightvision.bundles.winner import Checks, Winner
from stages.core.predicting import pictures
from stages.core.running.errors import Refusal
from stages.core.shipping import running
from tests import browser, made_network

PAGE = Path(make_web.__file__).parent / "web"
SIZE = 24
CLASSES = ("ash", "beech", "cherry", "<b>elm</b>")
RESIZING = """
import { readFileSync, writeFileSync } from "node:fs";
import { Resampler } from %(module)s;
const cases = JSON.parse(readFileSync("cases.json"));
const pixels = readFileSync("pixels.bin");
const squares = [];
let at = 0;
for (const { width, height, size, fit, rows } of cases) {
  const resampler = new Resampler(width, height, size, fit);
  for (let top = resampler.first; top < resampler.last; top += rows) {
    const count = Math.min(rows, resampler.last - top);
    resampler.take(pixels.subarray(at + top * width * 4, at + (top + count) * width * 4), count);
  }
  at += width * height * 4;
  squares.push(resampler.square());
}
writeFileSync("squares.bin", Buffer.concat(squares));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="there is no node, which runs the page's code here")
def test_pictures_are_resized_as_by_pillow_to_the_last_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cases, given, wanted = [], [], []
    for width, height, size in [*random.integers(1, 160, (24, 3)).tolist(), (300, 2, 9), (2, 300, 9), (16, 16, 16)]:
        for fit in ("crop", "pad", "stretch") if width < 80 else ("crop",):
            shape = (height, width, 3)
            contrasts = random.integers(0, 2, shape) * 255  # overshoot is cut off at black and white
            image = (contrasts if height % 2 else random.integers(0, 256, shape)).astype(np.uint8)
            if fit == "pad" and size * min(width, height) / max(width, height) <= 0.5:
                continue  # nothing would be left of it
            cases.append({"width": width, "height": height, "size": size, "fit": fit, "rows": 1 + height % 7})
            given.append(np.dstack([image, np.full((height, width), 255, np.uint8)]).tobytes())
            wanted.append(np.asarray(pictures.FITS[fit](Image.fromarray(image), size)))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "pixels.bin").write_bytes(b"".join(given))
    (tmp_path / "resize.mjs").write_text(RESIZING % {"module": json.dumps((PAGE / "resample.js").as_uri())})
    subprocess.run(["node", "resize.mjs"], cwd=tmp_path, check=True)
    squares = np.frombuffer((tmp_path / "squares.bin").read_bytes(), np.uint8)
    for case, square in zip(cases, wanted, strict=True):
        assert np.array_equal(squares[: square.size], square.ravel()), case
        squares = squares[square.size :]
    assert not squares.size


def test_the_page_names_no_address_and_only_files_that_are_there() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir()}
    code = {name: text for name, text in texts.items() if name.endswith((".html", ".css", ".js"))}
    assert not [name for name, text in code.items() if re.search(r"https?:|//[a-z]+\.[a-z]", text)]
    named = re.findall(r'(?:src|href)="([^"#]+)"|from "\./([^"]+)"', "".join(code.values()))
    assert {name for pair in named for name in pair if name} == set(texts) - {"index.html", "README.md.jinja"}
    identifiers = set(re.findall(r'\bid="([^"]+)"', texts["index.html"]))
    assert set(re.findall(r'\bat\("([^"]+)"\)', texts["app.js"])) <= identifiers
    assert set(re.findall(r'(?:for|aria-labelledby)="([^"]+)"', texts["index.html"])) <= identifiers


def test_a_runtime_other_than_the_published_one_is_refused(winner: Winner, tmp_path: Path) -> None:
    other = tmp_path / "other.tgz"
    other.write_bytes(b"no such package")
    with pytest.raises(Refusal, match="another file than the onnxruntime-web@"):
        bundle.write("web", winner, tmp_path / "page", runtime=other)
    with pytest.raises(Refusal, match="is no file"):
        bundle.write("web", winner, tmp_path / "page", runtime=tmp_path / "absent.tgz")
    assert not (tmp_path / "page").exists()


def test_where_npm_is_not_or_fails_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refusal, match=r"npm is not here.*--runtime"), make_web.fetched():
        pass
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(Refusal, match=r"npm error network.*--runtime"), make_web.fetched():
        pass


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Winner:
    file = made_network.write(tmp_path_factory.mktemp("network") / "made.onnx", CLASSES, SIZE, "crop")
    none = Checks(np.zeros((0, SIZE, SIZE, 3), np.uint8), np.zeros(0, np.int64), np.zeros((0, len(CLASSES))))
    accuracy = {"val": {"accuracy": 0.5, "low": 0.25, "high": 0.75, "pictures": 1234}, "test": None}
    told = running.facts(file)
    return Winner(file, "made", told, CLASSES, SIZE, "crop", (0.0,) * 3, (1.0,) * 3, "a test", accuracy, none, "none")


@pytest.fixture(scope="module")
def page(winner: Winner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    if not browser.CHROMIUM:
        pytest.skip("there is no Chromium")
    folder = tmp_path_factory.mktemp("web") / "page"
    try:
        bundle.write("web", winner, folder)
    except Refusal as refusal:
        pytest.skip(str(refusal))
    with (
        browser.served(folder) as address,
        browser.opened(address, tmp_path_factory.mktemp("profile")) as opened,
    ):
        opened.wait("document.getElementById('status')?.textContent === 'Ready.'")
        yield opened


def picture(width: int, height: int) -> Image.Image:
    """Smooth, with edges, unlike in all directions."""
    few = np.random.default_rng(width).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3)).astype(np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


Save = Callable[[Path], None]


def kinds() -> Iterator[tuple[str, Save]]:
    """Each kind of file of which the page has the very pixels that Pillow has."""
    usual = picture(200, 151)
    for width, height in ((333, 211), (97, 401), (24, 24), (7, 5), (1201, 83)):
        shape = picture(width, height)
        yield f"{width}x{height}.png", shape.save
        yield f"{width}x{height}.jpg", shape.save
    yield "grey.png", usual.convert("L").save
    yield "palette.gif", usual.quantize(64).save
    yield "lossless.webp", lambda path: usual.save(path, lossless=True)
    holes = np.random.default_rng(0).integers(0, 2, (151, 200)).astype(np.uint8) * 255
    yield "holes.png", Image.fromarray(np.dstack([np.asarray(usual), holes])).save
    linear = PngImagePlugin.PngInfo()
    linear.add(b"gAMA", (100_000).to_bytes(4, "big"))
    yield "gamma.png", lambda path: usual.save(path, pnginfo=linear)
    for turn in (3, 6, 7):
        exif = Image.Exif()
        exif[0x112] = turn
        yield f"turned{turn}.jpg", lambda path, exif=exif: usual.save(path, exif=exif)


CARDS = """[...document.querySelectorAll('#answers > li')].map((card) => {
  const canvas = card.querySelector('.asked');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const lines = [...card.querySelectorAll('.classes li')];
  const shares = lines.map((line) => [line.querySelector('span').textContent, +line.querySelector('data').value]);
  return { name: card.querySelector('h3').textContent, pixels: [...data], shares, told: card.innerText };
})"""


def answered(page: browser.Page, paths: list[Path]) -> dict[str, Any]:
    page.evaluate("document.getElementById('clear').click()")
    page.choose("#files", paths)
    page.wait(f"document.querySelectorAll('#answers > li').length === {len(paths)}")
    return {card["name"]: card for card in page.evaluate(CARDS)}


@pytest.mark.slow
def test_the_page_sees_what_pillow_sees_and_answers_as_onnx_runtime(
    page: browser.Page, winner: Winner, tmp_path: Path
) -> None:
    for name, save in kinds():
        save(tmp_path / name)
    cards = answered(page, sorted(tmp_path.iterdir()))
    leading = set()
    for path in sorted(tmp_path.iterdir()):
        square = np.asarray(pictures.FITS["crop"](pictures.read(path).image, SIZE))
        seen = np.array(cards[path.name]["pixels"], np.uint8).reshape(SIZE, SIZE, 4)[..., :3]
        # browsers and Pillow need not decode JPEG alike; Debian's do
        assert np.abs(seen.astype(int) - square).max() <= (2 if path.suffix == ".jpg" else 0), path.name
        shares = cards[path.name]["shares"]
        assert dict(shares) == pytest.approx(made_network.probabilities(winner.file, square), abs=1e-4), path.name
        assert shares == sorted(shares, key=lambda pair: -pair[1])
        assert " ms, the median of" in cards[path.name]["told"]
        leading.add(shares[0][0])
    assert len(leading) > 1, "a network that always says the same shows nothing"


@pytest.mark.slow
def test_half_transparent_and_deep_pictures_differ_by_one_step_at_most(page: browser.Page, tmp_path: Path) -> None:
    usual = picture(200, 151)
    veil = np.random.default_rng(0).integers(0, 256, (151, 200)).astype(np.uint8)
    Image.fromarray(np.dstack([np.asarray(usual), veil])).save(tmp_path / "veiled.png")
    Image.fromarray(np.asarray(usual.convert("L")).astype(np.uint16) * 251).save(tmp_path / "deep.png")
    for name, card in answered(page, sorted(tmp_path.iterdir())).items():
        square = np.asarray(pictures.FITS["crop"](pictures.read(tmp_path / name).image, SIZE))
        seen = np.array(card["pixels"], np.uint8).reshape(SIZE, SIZE, 4)[..., :3]
        assert np.abs(seen.astype(int) - square).max() <= 1, name


@pytest.mark.slow
def test_what_is_no_picture_is_said_in_words_and_the_next_one_is_answered(page: browser.Page, tmp_path: Path) -> None:
    page.evaluate("document.getElementById('clear').click()")
    (tmp_path / "1 empty.png").write_bytes(b"")
    (tmp_path / "2 letter.png").write_bytes(b"Dear reader,")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "3 huge.png")
    usual = picture(50, 40)
    usual.save(tmp_path / "4 usual.png")
    (tmp_path / "5 torn.png").write_bytes((tmp_path / "4 usual.png").read_bytes()[:60])
    Image.new("RGB", (20_000, 500), "red").save(tmp_path / "6 wide.png")
    paths = sorted(tmp_path.iterdir())
    page.choose("#files", paths)
    page.wait(f"document.querySelectorAll('#answers > li').length === {len(paths)}")
    told = page.evaluate("[...document.querySelectorAll('.verdict')].map((one) => one.textContent)")
    assert told[0] == "No answer: it is empty."
    assert told[1] == "No answer: it is no picture that this browser can read."
    assert told[2] == "No answer: 20000 × 20000 pixels are too many: the most is 100 million."
    assert told[3] in CLASSES
    assert told[4].startswith("No answer: it is ")
    assert told[5] in CLASSES
    page.evaluate("document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()}))")
    assert page.evaluate("document.getElementById('trouble').textContent") == "There was no picture in that."


PASSING = """(async () => {
  const canvas = document.createElement('canvas');
  canvas.getContext('2d').fillRect(9, 9, 99, 99);
  const blob = await new Promise((done) => canvas.toBlob(done));
  const passed = new DataTransfer();
  passed.items.add(new File([blob], 'passed.png', { type: 'image/png' }));
  document.dispatchEvent(new DragEvent('drop', { dataTransfer: passed, cancelable: true }));
  document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: passed }));
})()"""


@pytest.mark.slow
def test_dropped_and_pasted_pictures_and_the_camera_are_answered(page: browser.Page) -> None:
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate(PASSING)
    page.wait("document.querySelectorAll('#answers > li').length === 2")
    page.evaluate("document.getElementById('camera').click()")
    page.wait("document.getElementById('video').videoWidth > 0")
    page.evaluate(
        "window.stream = document.getElementById('video').srcObject; document.getElementById('shoot').click()"
    )
    page.wait("document.querySelectorAll('#answers > li').length === 3")
    assert not page.evaluate("document.querySelectorAll('#answers .failed').length")
    assert page.evaluate("window.stream.getTracks().map((track) => track.readyState)") == ["ended"], "it stays on"


@pytest.mark.slow
def test_the_page_tells_what_was_measured_and_asks_nobody_else(page: browser.Page, winner: Winner) -> None:
    facts = page.evaluate("document.getElementById('facts').innerText")
    assert f"{winner.bytes:,} bytes" in facts
    assert "50.0 % [25.0 %, 75.0 %] of 1,234 pictures of val" in facts
    assert "4: ash, beech, cherry, <b>elm</b>" in facts, "class names are text, never markup"
    origin = page.evaluate("location.origin")
    assert not [
        at for at in page.addresses() if not at.removeprefix("blob:").startswith(origin) and at != "about:blank"
    ]
    assert page.complaints() == []
    refused = "fetch('http://127.0.0.1:9/').then(() => 'asked', (error) => error.message)"
    assert page.evaluate(refused) == "Failed to fetch"
    assert any("Content Security Policy" in complaint for complaint in page.complaints())
    assert page.evaluate("(() => { try { return eval('1') } catch (error) { return error.name } })()") == "EvalError"


BREAKING: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "no model": (lambda folder: (folder / "model.onnx").unlink(), "model.onnx cannot be fetched"),
    "half a model": (lambda folder: _halve(folder / "model.onnx"), "model.onnx has "),
    "no runtime": (lambda folder: shutil.rmtree(folder / "runtime"), "the folder runtime/ is not beside this page"),
    "half a runtime": (
        lambda folder: _halve(folder / "runtime" / make_web.CARRIED[1]),
        "The network cannot be loaded: ",
    ),
}


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.skipif(not browser.CHROMIUM, reason="there is no Chromium")
def test_a_network_that_does_not_load_is_said_in_words(winner: Winner, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    try:
        bundle.write("web", winner, whole)
    except Refusal as refusal:
        pytest.skip(str(refusal))
    for number, (spoil, told) in enumerate(BREAKING.values()):
        shutil.copytree(whole, folder := tmp_path / f"spoilt{number}")
        spoil(folder)
        with browser.served(folder) as address, browser.opened(address, tmp_path / f"profile{number}") as page:
            page.wait("document.getElementById('trouble') && !document.getElementById('trouble').hidden")
            assert told in page.evaluate("document.getElementById('trouble').textContent")
            assert page.evaluate("document.getElementById('files').disabled")
