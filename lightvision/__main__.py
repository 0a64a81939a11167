"""`lightvision`: what dvc, prefect and mlflow do not do."""

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module

from stages.core.predicting.wording import shown
from stages.core.running.errors import Refusal

BROKEN_PIPE = 141  # as a shell tells it of a program that wrote to nobody

# a command by itself: what it is for, and the module whose `add` adds its parser; only the chosen one is imported
COMMANDS: Mapping[str, tuple[str, str]] = {
    "models": ("list the networks with parameters and multiply-accumulates for one picture", "lightvision.models"),
    "study": ("gather DVC's finished experiments over one parameter or two, for the report", "lightvision.study"),
    "sweep": ("run several seeds or folds, and say what is the same in all of them", "lightvision.sweep"),
    "ablation": ("run an ablation, and compare each row with the baseline row, by seed", "lightvision.ablation"),
    "search": ("look for the file that keeps to a budget best, in a space of parameters", "lightvision.search"),
    "best": ("of all files of all runs: which keep to the limits, and which is best", "lightvision.best"),
    "recommend": ("for each kind of device, the file that keeps to the limits best", "lightvision.recommend"),
    "targets": ("list the files for other runtimes, and build their converters", "lightvision.targets"),
    "predict": ("say what pictures show, by any network or file", "lightvision.predict"),
    "bundle": ("write the file that keeps to the limits with what runs it on a kind of device", "lightvision.bundle"),
    "compare": ("what differs between two runs, picture by picture", "lightvision.compare"),
    "check": ("hold one file of a run against a file of limits, a line for each", "lightvision.check"),
    "lineage": ("tell where a file, a registered model or a run comes from", "lightvision.lineage"),
    "reproduce": ("run anew the stages that made a file, and compare", "lightvision.reproduce"),
    "worker": ("do a cluster's jobs on this machine, one on each GPU", "lightvision.worker"),
}

# groups of commands: what one is for, and the module whose `COMMANDS` has a function for each action
GROUPS: Mapping[str, tuple[str, str]] = {
    "data": ("look at data sets and fetch them", "lightvision.data"),
    "bench": ("measure parts of the pipeline against the usual way", "lightvision.bench"),
}


def main() -> None:
    """Exit status 0, 1 where something is wrong with what was looked at or asked for, 2 for a wrong command line."""
    try:
        status = _run()
    except Refusal as refusal:
        status = "lightvision: " + shown(" ".join(str(refusal).split()))
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = BROKEN_PIPE
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        status = f"lightvision: {shown(f'{error.strerror or error}{where}')}"
    _give_up_output()
    sys.exit(status)


def _run() -> int:
    arguments = vars(_parser(sys.argv[1:2]).parse_args())
    status = arguments.pop("run")(**arguments)
    sys.stdout.flush()
    return status


def _parser(chosen: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lightvision", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (summary, module) in COMMANDS.items():
        if [name] == chosen:
            import_module(module).add(commands, name)
        else:
            commands.add_parser(name, help=summary)
    for name, (summary, module) in GROUPS.items():
        group = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if [name] == chosen:
            members = group.add_subparsers(required=True, metavar="ACTION")
            for action, add in import_module(module).COMMANDS.items():
                add(members, action)
    return parser


def _give_up_output() -> None:
    """What could not be written would be tried again when Python ends, and complained of."""
    with suppress(OSError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
