"""A project of git and DVC whose models follow from each other by formula, in no time: `python make.py`."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stages.core.running import files
from tests.made_project import commit, dvc, enter, shell

MAKE = """
import hashlib, json, sys
from pathlib import Path
import onnx
from ruamel.yaml import YAML

name, before = sys.argv[1], sys.argv[2:]
seed, rate = (YAML(typ="safe").load(Path("params.yaml"))[key] for key in ("seed", "rate"))
card = lambda model: hashlib.sha256(Path(f"models/{model}/model.json").read_bytes()).hexdigest()
write = lambda path, content: (path.parent.mkdir(parents=True, exist_ok=True), path.write_text(json.dumps(content)))
if name == "prepare":
    write(Path("data/train/split.json"), seed)
    write(Path("data/manifest.csv"), seed)
    write(Path("metrics/prepare.json"), {"pictures": {"train": 3, "val": 1}})
elif name == "export":
    value = onnx.helper.make_tensor_value_info("x", 1, [rate])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [value], [value]))
    onnx.helper.set_model_props(model, {"model": card("quantized"), "dataset": "digits"})
    Path("models/shipped").mkdir(parents=True)
    onnx.save(model, "models/shipped/quantized.onnx")
    size = Path("models/shipped/quantized.onnx").stat().st_size
    write(Path("metrics/export.json"), {"quantized": {"bytes": size, "accuracy": 1 / rate}})
else:
    facts = {"facts": {"dataset": "digits"}, "parents": {one: card(one) for one in before}, "seed": seed}
    write(Path(f"models/{name}/model.json"), facts)
"""
STAGES: Mapping[str, tuple[str, list[str], list[str]]] = {
    "prepare": ("prepare", [], ["data/train", "data/manifest.csv"]),
    "train_teacher": ("teacher", ["data/train"], ["models/teacher"]),
    "distill": ("student teacher", ["models/teacher"], ["models/student"]),
    "prune": ("pruned student", ["models/student"], ["models/pruned"]),
    "quantize": ("quantized pruned", ["models/pruned"], ["models/quantized"]),
    "export": ("export", ["models/quantized"], ["models/shipped"]),
}
PARAMS = "seed: 0\nrate: 2\nexport: {max_drop: 0.1}\n"


def pipeline() -> str:
    lines = ["stages:"]
    for name, (words, deps, outs) in STAGES.items():
        params = "[rate, export]" if name == "export" else "[seed]"
        lines += [f"  {name}:", f"    cmd: {sys.executable} make.py {words}", f"    params: {params}"]
        lines += [f"    deps: [{', '.join(['make.py', *deps])}]", f"    outs: [{', '.join(outs)}]"]
        if name in ("prepare", "export"):
            lines += [f"    metrics: [metrics/{name}.json: {{cache: false}}]"]
    return "\n".join(lines) + "\n"


def build(folder: Path) -> Path:
    """Two commits, the second with another rate, and an experiment `faster` on it that nobody applied."""
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        shell("git", "init", "-q")
        shell("git", "config", "user.email", "a@b.c")
        shell("git", "config", "user.name", "n")
        files.write_text(Path(".gitignore"), "/models\n/data\n/mlflow.db\n")
        files.write_text(Path("make.py"), MAKE)
        files.write_text(Path("dvc.yaml"), pipeline())
        dvc("init", "-q")
        dvc("remote", "add", "-q", "-d", "store", "../remote")
        for rate in (2, 4):
            files.write_text(Path("params.yaml"), PARAMS.replace("rate: 2", f"rate: {rate}"))
            dvc("repro", "-q")
            dvc("push", "-q")
            commit()
        dvc("exp", "run", "-q", "-n", "faster", "-S", "rate=5")
        dvc("push", "-q")
        shutil.copy("models/shipped/quantized.onnx", "faster.onnx")
        shell("git", "checkout", "-q", ".")
        dvc("checkout", "-q")
    return folder
