"""A stage's `main` is its contract; this turns it into a command.

    def main(run: Run, prune: params.Prune, seed: int, student: Input, train: Input, pruned: Output) -> None

An `Input` or `Output` is a path of dvc.yaml's `cmd` (--student models/student), `run` is the journal, and every other
argument is the entry of params.yaml that bears its name. Outputs are handed to `main` under temporary names and put in
place together after it has returned: a stage that fails leaves nothing behind.
"""

import argparse
import importlib
import inspect
import logging
import os
import platform
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_origin

from stages.core import params
from stages.core.running import devices, files, identity, messenger, pipeline, processes, sources, team
from stages.core.running.errors import Busy, Refusal
from stages.core.running.journal import Run

Input = Annotated[Path, "input"]
Output = Annotated[Path, "output"]


@dataclass(frozen=True)
class Contract:
    """What a stage reads and writes, as its signature says."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: tuple[str, ...]

    @classmethod
    def of(cls, main: Callable[..., None]) -> "Contract":
        named = inspect.signature(main, eval_str=True).parameters
        roles = {name: _role(parameter.annotation) for name, parameter in named.items()}
        return cls(*(tuple(name for name in roles if roles[name] == role) for role in ("input", "output", "settings")))


def _role(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return annotation.__metadata__[0]
    return "run" if annotation is Run else "settings"


def run() -> NoReturn:
    """Run one stage and exit as a shell expects: 0, or a line that says what is wrong and 1."""
    names = sorted(path.stem for path in (sources.ROOT / "stages").glob("*.py") if not path.stem.startswith("__"))
    stage = sys.argv[1] if len(sys.argv) > 1 else ""
    if stage not in names:
        sys.exit(f"usage: python -m stages NAME --option path ...; NAME is one of {', '.join(names)}")
    try:
        _execute(stage)
    except Busy as busy:
        print(_one_line(stage, str(busy)), file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except Refusal as refusal:
        sys.exit(_one_line(stage, str(refusal)))
    except ModuleNotFoundError as error:
        sys.exit(_one_line(stage, f"{error}: run it in the locked environment (see README.md)"))
    except KeyboardInterrupt:
        print(_one_line(stage, "stopped; the same command goes on from here"), file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        sys.exit(_one_line(stage, f"{error.strerror or error}{where}"))
    sys.exit(0)


def _execute(stage: str) -> None:
    """Parameters are checked before the stage's module, and with it torch, is imported: a typo dies at once."""
    parameters = params.load(Path("params.yaml"))
    together = parameters.compute.processes
    if together > 1 and team.member().size == 1 and hasattr(getattr(parameters, stage), "training"):
        team.start(together, stage, sys.argv[2:])
    if "DVC_ROOT" in os.environ or not team.member().leads:
        processes.end_with_starter()
    _hush_libraries()
    main: Callable[..., None] = importlib.import_module(f"stages.{stage}").main
    contract = Contract.of(main)
    paths = _parse(stage, contract)
    settings = parameters.pick(contract.settings)
    inputs = {name: paths[name] for name in contract.inputs}
    for name, path in inputs.items():
        if not path.exists():
            option = name.replace("_", "-")
            raise Refusal(f"--{option} {path} is not there: `dvc repro {stage}` makes or fetches it first")
    if not team.member().leads:
        _follow(main, contract, settings, inputs)
        return
    key = identity.key(stage, inputs, settings)
    journal = Run.open(stage, key)
    journal.start(_facts(stage, key, inputs, settings))
    messenger.ensure()
    partials = {name: paths[name].with_name(paths[name].name + ".partial") for name in contract.outputs}
    for path in partials.values():
        files.remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)
    status, reason, began = "killed", "", time.monotonic()
    try:
        with devices.held():
            main(run=journal, **settings, **inputs, **partials)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for name in contract.outputs:
            files.publish(partials[name], paths[name])
        for name in contract.outputs:
            journal.keep(name, paths[name])
        status = "finished"
    except Exception as error:
        status, reason = "failed", str(error)
        raise
    finally:
        for path in partials.values():
            files.remove(path)
        journal.tell(**_effort(began))
        journal.end(status, reason)
        if status == "finished" and not messenger.wanted():
            files.remove(journal.folder)


def _follow(
    main: Callable[..., None], contract: Contract, settings: Mapping[str, Any], inputs: Mapping[str, Path]
) -> None:
    """One of several processes that train together, and not the one that writes: what it makes is thrown away."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        outputs = {name: Path(folder) / name for name in contract.outputs}
        main(run=Run(Path(folder) / "run"), **settings, **inputs, **outputs)


def _facts(stage: str, key: str, inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What anybody needs to understand, find and repeat this execution."""
    stages = pipeline.read()
    return {
        "stage": stage,
        "key": key,
        "pid": os.getpid(),
        "host": platform.node(),
        "folder": str(Path.cwd()),
        "commit": identity.commit(),
        "pipeline": pipeline.state(stages),
        "experiment": os.environ.get("DVC_EXP_NAME", ""),
        "flow_run": os.environ.get("LIGHTVISION_FLOW_RUN", ""),
        "settings": identity.plain(settings),
        "inputs": {name: {"path": path.as_posix(), "digest": files.digest(path)} for name, path in inputs.items()},
        "order": list(stages),
    }


def _parse(stage: str, contract: Contract) -> dict[str, Path]:
    parser = argparse.ArgumentParser(prog=f"python -m stages {stage}", allow_abbrev=False)
    for name in (*contract.inputs, *contract.outputs):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    return vars(parser.parse_args(sys.argv[2:]))


def _hush_libraries() -> None:
    """What libraries tell their own developers is nothing that a person who runs a stage could act on."""
    warnings.filterwarnings("ignore", module=r"(PIL|brevitas|torch|torch_pruning|onnxscript)\b")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def _stop(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _one_line(stage: str, message: str) -> str:
    return f"{stage}: " + " ".join(message.split())


def _effort(began: float) -> dict[str, str | float]:
    peak = processes.peak_memory() / 2**20
    return {"seconds": round(time.monotonic() - began, 2), "peak_memory_mib": round(peak, 1), "host": platform.node()}
