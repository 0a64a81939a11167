"""A mistake in params.yaml dies before anything else happens, with the allowed words beside it."""

import typing
from pathlib import Path

import pytest

from stages.core import augmentation, params
from stages.core.datasets.sources import SOURCES
from stages.core.networks.families import FAMILIES
from stages.core.objectives.building import OBJECTIVES
from stages.core.predicting import pictures
from stages.core.pruning.goals import GOALS
from stages.core.pruning.importances import IMPORTANCES
from stages.core.quantizing.methods import METHODS
from stages.core.quantizing.ranges import RANGES
from stages.core.quantizing.rounding import ROUNDINGS
from stages.core.running.errors import Refusal
from stages.core.running.sources import ROOT
from stages.core.training.optimizers import OPTIMIZERS
from stages.core.training.schedules import SCHEDULES

HINTON = "{name: hinton, temperature: 4.0, alpha: 0.9}"
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("sparsity: 0.5", "sparsty: 0.5", r"prune\.sparsty is not a parameter; allowed here: sparsity, of, importance"),
        ("sparsity: 0.5", "sparsity: 1.5", r"prune\.sparsity: .*less than 1, got 1\.5"),
        ("sparsity: 0.5", "sparsity: half", r"prune\.sparsity: .*valid number, got 'half'"),
        ("sparsity: 0.5", "sparsity: .nan", r"prune\.sparsity"),
        ("{name: group_norm}", "{name: l7}", r"prune\.importance: .*'l1', 'l2', 'group_norm'"),
        ("{name: digits, path: null}", "{name: digits, path: x}", r"path: .*None"),
        ("{name: digits, path: null}", "{name: folder, path: null}", r"path: .*valid string"),
        (
            "{name: digits, path: null}",
            "{name: digits, where: x}",
            r"where is not a parameter; allowed here: name, path",
        ),
        ("{name: digits, path: null}", "{name: imagenet, path: null}", r"source: .*'cifar10'"),
        ("val_share: 0.2", "val_share: 0.9", r"leave nothing to train on"),
        ("fold: 0", "fold: 1", r"fold 1 is not one of 1: they count from 0"),
        ("broken: stop", "broken: ignore", r"policy\.broken: .*'stop' or 'skip'"),
        ("crop: 1.0", "crop: 0", r"augment\.crop: .*greater than 0"),
        ("mix: {name: none}", "mix: {name: mixup}", r"mix\.mixup\.alpha is missing|mix\..*alpha is missing"),
        (
            "temperature: 4.0",
            "temprature: 4.0",
            r"temprature is not a parameter; allowed here: name, temper",
        ),
        ("temperature: 4.0", "temperature: 0", r"temperature: .*greater than 0"),
        ("alpha: 0.9", "alpha: 1.1", r"alpha: .*less than or equal to 1"),
        ("epochs: 8", "epochs: 2.5", r"train_teacher\.training\.epochs"),
        ("seed: 0", "sead: 0", r"sead is not a parameter; allowed here: seed, compute"),
        ("device: auto", "device: gpu", r"compute\.device: .*'cuda'"),
        ("  image_size: 16\n", "", r"prepare\.image_size is missing"),
        ("seed: 0", "seed: [", r"is not YAML"),
        ("method: {name: hinton", "method: {name: cross_entropy", r"distill\.method: .*'hinton', 'standardised'"),
        (
            HINTON,
            "{name: dkd, temperature: 4.0, alpha: 1.0, beta: -1, warm_up_epochs: 2}",
            r"beta.*greater than or equal",
        ),
        (HINTON, "{name: fitnet, layers: [], weight: 1.0}", r"layers: .*at least 1 item"),
        (HINTON, "{name: fitnet, layers: [{student: a}], weight: 1.0}", r"teacher is missing"),
        (HINTON, "{name: function_matching, temperature: 1.0}", r"distill\.method: function_matching needs blended"),
        ("control: true", "control: 1", r"distill\.control: .*valid boolean"),
        ("seeds: 3", "seeds: 0", r"distill\.seeds: .*greater than or equal to 1"),
        ("views: 0", "views: -1", r"advise\.views"),
        ("weights: 4 ", "weights: 9 ", r"quantize\.method\.integer\.weights"),
        ("weights: 4 ", "weights: binary ", r"quantize\.method\.integer\.weights.*1 to 8 bits, or ternary"),
        ("activations: 8", "activations: 1", r"activations: .*greater than or equal to 2"),
        ("ends: 8", "ends: 1", r"ends: .*greater than or equal to 2"),
        ("layers: {}", "layers: {conv1: 0}", r"layers\.conv1"),
        ("weights: []", "weights: [4, 8]", r"quantize\.ladder: ladder \[4, 8\]: numbers of bits, falling"),
        ("weights: []", "weights: [ternary, 2]", r"ladder \['ternary', 2\]: numbers of bits, falling"),
        ("weights: 4 ", "weights: {choices: [2, 2], budget: {name: bytes, at_most: 9}} ", r"choices \[2, 2\]: numbers"),
        ("percentile: 99.99", "percentile: 50", r"greater than 50"),
        ("settle: 0.7", "settle: 1.1", r"quantize\.settle: .*less than or equal to 1"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in TEXT
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(Refusal, match=message):
        params.load(path)


FITNET = "{name: fitnet, layers: [{student: a, teacher: b}], weight: 1.0}"
DKD = "{name: dkd, temperature: 4.0, alpha: 1.0, beta: 2.0, warm_up_epochs: 2}"
DEEPER = "{name: deeper, layers: [a], deepest: b, temperature: 1.0, alpha: 0.1, hint: 0.1}"
CRD = "{name: crd, layers: {student: a, teacher: b}, weight: 1, size: 8, negatives: 8, temperature: 0.1, momentum: 0.5}"
MIXED = "mix: {name: mixup, alpha: 1.0}"
STUDENT = "{name: residual_cnn, blocks: 6, hidden_layers: 1}"
VIEWS = ("views: 0", "views: 4")
AS_PRUNE = "  # as prune.recovery"  # tells the recovery of quantize from that of prune
RECOVERY = "recovery: " + HINTON + AS_PRUNE
INTEGER = TEXT[TEXT.index("method:\n    name: integer") : TEXT.index("  search: false")].rstrip()
ITSELF = ("guide: {name: teacher}", "guide: {name: itself, generations: 2}")
ENSEMBLE = "{name: ensemble, members: [{name: resnet9, width: 0.5}, {name: resnet9, width: 1.0}]}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [VIEWS, (HINTON, FITNET)],
            r"distill\.method: fitnet looks .*set advise\.views to 0",
        ),
        (
            [VIEWS, ("recovery: " + HINTON, "recovery: " + FITNET)],
            r"prune\.recovery: fitnet looks at",
        ),
        ([VIEWS, (RECOVERY, "recovery: " + FITNET + AS_PRUNE)], r"quantize\.recovery: fitnet looks at"),
        (
            [(RECOVERY, "recovery: null" + AS_PRUNE), ("weights: []", "weights: [8]")],
            r"ladder is what a network learns on",
        ),
        (
            [
                (INTEGER, "method: {name: float16}"),
                (RECOVERY, "recovery: null" + AS_PRUNE),
                ("search: false", "search: true"),
            ],
            r"search is for method integer: float16",
        ),
        (
            [(INTEGER, "method: {name: float8, format: e4m3}"), (RECOVERY, "recovery: null" + AS_PRUNE)],
            r"export\.opset: .*19",
        ),
        ([(INTEGER, "method: {name: bfloat16}")], r"recovery is for method integer: bfloat16"),
        ([VIEWS, ("distill:", MIXED)], r"distill\.training\.mix: views are blended by advise\.mix"),
        (
            [(HINTON, DKD), ("distill:", MIXED)],
            r"method: dkd needs one label a picture; set distill\.training\.mix",
        ),
        ([VIEWS, (HINTON, DKD), ("advise:", MIXED)], r"dkd needs one label a picture; set advise\.mix"),
        ([("processes: 1", "processes: 2"), (HINTON, CRD)], r"crd remembers every picture in one process"),
        (
            [ITSELF, (HINTON, DEEPER)],
            r"yaml: distill: method deeper listens to no earlier generation; set guide to \{name: teacher\}$",
        ),
        ([ITSELF, ("control: true", "control: false")], r"set control to true"),
        ([ITSELF, (STUDENT, "{name: teacher}")], r"goes on as it came"),
        ([(STUDENT, "{name: teacher}"), ("{name: resnet18, stem: small, width: 0.5}", ENSEMBLE)], r"cannot be pruned"),
    ],
)
def test_what_sections_must_agree_on(tmp_path: Path, changes: list[tuple[str, str]], message: str) -> None:
    text = TEXT
    for before, after in changes:
        if before.endswith(":"):  # the first mix of that section
            head, section, rest = text.partition(f"\n{before}\n")
            assert section
            text = head + section + rest.replace("mix: {name: none}", after, 1)
        else:
            assert before in text
            text = text.replace(before, after, 1)
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Refusal, match=message):
        params.load(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(Refusal, match=r"nowhere\.yaml is not there"):
        params.load(Path("nowhere.yaml"))


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("rate: 2e-3", "rate: 1e-3", 1), encoding="utf-8")
    assert params.load(path).train_teacher.training.optimizer.rate == 0.001


def test_settings_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.load(ROOT / "params.yaml").prune.sparsity = 0.9  # pyright: ignore[reportAttributeAccessIssue]


def names(annotation: object) -> set[str]:
    """The names that a choice among methods allows."""
    members = typing.get_args(typing.get_args(annotation)[0]) or (typing.get_args(annotation)[0],)
    return {name for member in members for name in typing.get_args(member.model_fields["name"].annotation)}


@pytest.mark.parametrize(
    ("allowed", "table"),
    [
        (names(params.Source), SOURCES),
        (names(params.Network), FAMILIES),
        (names(params.Objective), OBJECTIVES),
        (names(params.Optimizer), OPTIMIZERS),
        (names(params.Schedule), SCHEDULES),
        (names(params.Importance), IMPORTANCES),
        (names(params.Mix), augmentation.MIXES),
        (names(params.Quantization), METHODS),
        (names(params.Range), RANGES),
        (names(params.Rounding), ROUNDINGS),
        (set(typing.get_args(params.Prune.model_fields["of"].annotation)), GOALS),
        (set(typing.get_args(params.Prepare.model_fields["fit"].annotation)), pictures.FITS),
    ],
    ids=[
        *("sources", "networks", "objectives", "optimizers", "schedules", "importances", "mixes"),
        *("quantizations", "ranges", "roundings", "goals", "fits"),
    ],
)
def test_every_name_has_its_function(allowed: set[str], table: typing.Mapping[str, object]) -> None:
    assert allowed == set(table)
