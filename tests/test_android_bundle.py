"""The project is whole, its code compiles, and its pixels are Pillow's."""

# ruff: noqa: S314 - the files that are parsed are our own

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as Trees
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightvision import bundle
from lightvision.bundles import make_android
from lightvision.bundles.winner import Checks, Winner
from stages.core.shipping import running
from tests import made_network
from tests.android_stubs import STUBS

SIZE = 16
CLASSES = ("ash", "beech", "cherry")
ANDROID = "{http://schemas.android.com/apk/res/android}"
MAIN = Path("app/src/main")
CODE = Path("app/src/main/kotlin/lightvision/classifier")
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")  # where Debian puts it
JUNIT = [Path("/usr/share/java/junit4.jar"), Path("/usr/share/java/hamcrest.jar")]
KOTLIN = ["-language-version", "2.2", "-api-version", "2.2", "-jvm-target", "17", "-Werror"]  # as the project's plugin
TESTS = ["lightvision.classifier.PixelsTest", "lightvision.classifier.TimingTest"]


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Winner:
    file = made_network.write(tmp_path_factory.mktemp("network") / "made.onnx", CLASSES, SIZE, "pad")
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    probabilities = np.array([list(made_network.probabilities(file, image).values()) for image in images])
    checks = Checks(images, np.zeros(3, np.int64), probabilities)
    accuracy = {"val": {"accuracy": 0.5, "low": 0.25, "high": 0.75, "pictures": 1234}, "test": None}
    told = running.facts(file)
    return Winner(file, "made", told, CLASSES, SIZE, "pad", (0.0,) * 3, (1.0,) * 3, "a test", accuracy, checks, "none")


@pytest.fixture(scope="module")
def project(winner: Winner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("android") / "project"
    bundle.write("android", winner, folder)
    return folder


def test_the_network_and_its_answers_lie_in_the_assets(project: Path, winner: Winner) -> None:
    assets = project / make_android.ASSETS
    assert (assets / "model.onnx").read_bytes() == winner.file.read_bytes()
    told = json.loads((assets / "bundle.json").read_text(encoding="utf-8"))
    assert (told["classes"], told["image_size"], told["fit"]) == (list(CLASSES), SIZE, "pad")
    assert told["model"]["bytes"] == winner.bytes
    pixels = np.frombuffer((assets / "checks.bin").read_bytes(), np.uint8).reshape(-1, SIZE, SIZE, 3)
    answers = json.loads((assets / "checks.json").read_text(encoding="utf-8"))
    for square, answer in zip(pixels, answers, strict=True):
        assert answer == pytest.approx(list(made_network.probabilities(winner.file, square).values()), abs=1e-6)


def test_what_is_referred_to_is_there_and_nothing_lies_idle(project: Path) -> None:
    resources = project / MAIN / "res"
    trees = {path: Trees.parse(path) for path in (project / MAIN).rglob("*.xml")}
    named = {(path.parent.name.split("-")[0], path.stem) for path in resources.rglob("*.xml")}
    for path, tree in trees.items():
        if path.parent.name.startswith("values"):
            named |= {(one.tag, one.attrib["name"]) for one in tree.getroot()}
        text = path.read_text(encoding="utf-8")
        named |= {("id", name) for name in re.findall(r'"@\+id/(\w+)"', text)}
    code = "".join(path.read_text(encoding="utf-8") for path in (project / CODE).iterdir())
    texts = code + "".join(path.read_text(encoding="utf-8") for path in trees)
    asked = set(re.findall(r"\bR\.(\w+)\.(\w+)", code)) | set(re.findall(r'[">]@(\w+)/([\w.]+)', texts))
    assert asked <= named
    assert {(kind, name) for kind, name in named if kind in ("string", "drawable", "xml", "layout", "color")} <= asked
    assert {name for kind, name in named if kind == "id"} <= {name for kind, name in asked if kind == "id"}


def test_the_app_asks_for_nothing_and_gives_nothing_away(project: Path) -> None:
    manifest = Trees.parse(project / MAIN / "AndroidManifest.xml").getroot()
    assert not list(manifest.iter("uses-permission"))
    application = manifest.find("application")
    assert application is not None
    assert application.attrib[f"{ANDROID}allowBackup"] == "false"
    exported = {one.attrib[f"{ANDROID}name"]: one.attrib[f"{ANDROID}exported"] for one in application}
    assert exported == {".MainActivity": "true", "androidx.core.content.FileProvider": "false"}
    rules = Trees.parse(project / MAIN / "res/xml/nothing_leaves.xml").getroot()
    assert {one.tag: {kept.attrib["domain"] for kept in one} for one in rules} == {
        "cloud-backup": {"root", "external"},
        "device-transfer": {"root", "external"},
    }
    for layout in (project / MAIN / "res/layout").iterdir():
        for picture in Trees.parse(layout).iter("ImageView"):
            assert picture.attrib[f"{ANDROID}contentDescription"].startswith("@string/")


def test_its_benchmark_writes_what_a_device_tells_of_itself(project: Path) -> None:
    code = (project / CODE / "Benchmark.kt").read_text(encoding="utf-8")
    written = set(re.findall(r'put\("(\w+)"', code)) | set(re.findall(r'"(\w+_threads?)" to', code))
    of_all = {"device", "machine", "confidence", "interval", "files", "agreement", "check"}
    of_files = {
        "bytes",
        "sha256",
        "one_thread",
        "all_threads",
        "median",
        "low",
        "high",
        "p95",
        "calls",
        "rounds",
        "noisy",
    }
    assert of_all | of_files | {"system", "integer_products", "cpu", "cores", "memory_bytes"} <= written
    assert '.put("system", "Android")' in code


def compiler() -> str:
    """A kotlinc that knows the language of the project's plugin."""
    if not (found := shutil.which("kotlinc")) or not shutil.which("java"):
        pytest.skip("there is no kotlinc, or no java")
    told = subprocess.run([found, "-version"], capture_output=True, text=True)
    version = re.search(r"kotlinc-jvm (\d+)\.(\d+)", told.stdout + told.stderr)
    if not version or (int(version[1]), int(version[2])) < (2, 2):
        pytest.skip("kotlinc is older than 2.2")
    return found


@pytest.mark.slow
def test_the_projects_own_tests_pass_on_pillows_numbers(project: Path, tmp_path: Path) -> None:
    if absent := [path.name for path in JUNIT if not path.is_file()]:
        pytest.skip(f"there is no {absent}")
    code = [project / CODE / f"{name}.kt" for name in ("Resample", "Orientation", "Timing")]
    tests = sorted((project / "app/src/test").rglob("*.kt"))
    path = ":".join(map(str, JUNIT))
    program = tmp_path / "tests.jar"
    subprocess.run([compiler(), *KOTLIN, "-include-runtime", "-cp", path, "-d", program, *code, *tests], check=True)
    run = [
        "java",
        "-cp",
        f"{program}:{project / 'app/src/test/resources'}:{path}",
        "org.junit.runner.JUnitCore",
        *TESTS,
    ]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "OK (4 tests)" in done.stdout


@pytest.mark.slow
def test_resources_link_and_all_code_compiles(project: Path, tmp_path: Path) -> None:
    """Against real Android where it is, and signatures of what else is called; not with the plugin that builds it."""
    platform = next(platforms(), None)
    if not platform or not FRAMEWORK.is_file() or not shutil.which("aapt2"):
        pytest.skip("there is no android.jar, aapt2 or framework-res.apk")
    manifest = (project / MAIN / "AndroidManifest.xml").read_text(encoding="utf-8")
    manifest = manifest.replace("<manifest ", '<manifest package="lightvision.classifier" ').replace(
        "${applicationId}", "a"
    )
    manifest = re.sub(r'\s*android:dataExtractionRules="[^"]+"', "", manifest)  # Debian's framework is older than that
    (tmp_path / "AndroidManifest.xml").write_text(manifest, encoding="utf-8")
    packed = tmp_path / "resources.zip"
    subprocess.run(["aapt2", "compile", "--dir", project / MAIN / "res", "-o", packed], check=True)
    link = [
        "aapt2",
        "link",
        "-I",
        FRAMEWORK,
        "--manifest",
        tmp_path / "AndroidManifest.xml",
        "--java",
        tmp_path / "made",
    ]
    link += ["--min-sdk-version", "24", "--target-sdk-version", "29", "-A", project / make_android.ASSETS]
    subprocess.run([*link, "-o", tmp_path / "resources.apk", packed], check=True)
    for name, text in STUBS.items():
        path = tmp_path / "made" / f"{name}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {name.rpartition('/')[0].replace('/', '.')};\n{text}\n", encoding="utf-8")
    stubs = tmp_path / "stubs"
    sources = sorted((tmp_path / "made").rglob("*.java"))
    subprocess.run(["javac", "-nowarn", "-d", stubs, "-cp", platform, *sources], check=True)
    code = sorted((project / CODE).iterdir())
    options = [*KOTLIN, "-no-jdk", "-cp", f"{stubs}:{platform}", "-d", tmp_path / "app.jar"]
    done = subprocess.run([compiler(), *options, *code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def platforms() -> Iterator[Path]:
    for home in (os.environ.get("ANDROID_HOME"), "/usr/lib/android-sdk"):
        yield from sorted(Path(home or "/nowhere").glob("platforms/android-*/android.jar"), reverse=True)
