"""`lightvision`: what dvc, prefect and mlflow do not do."""

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

from lightvision import (
    ablation,
    bench,
    best,
    bundle,
    check,
    compare,
    data,
    lineage,
    models,
    reproduce,
    search,
    study,
    sweep,
    worker,
)
from stages.core.running.errors import Refusal

Add = Callable[[Any, str], None]

# commands by themselves, each with the function that adds its parser
ALONE: Mapping[str, Add] = {
    "models": models.add,
    "study": study.add,
    "sweep": sweep.add,
    "ablation": ablation.add,
    "search": search.add,
    "best": best.add,
    "bundle": bundle.add,
    "compare": compare.add,
    "check": check.add,
    "lineage": lineage.add,
    "reproduce": reproduce.add,
    "worker": worker.add,
}

# groups of commands: what one is for, and for each action a function that adds its parser
GROUPS: Mapping[str, tuple[str, Mapping[str, Add]]] = {
    "data": ("look at data sets and fetch them", data.COMMANDS),
    "bench": ("measure parts of the pipeline against the usual way", bench.COMMANDS),
}


def main() -> None:
    """Exit status 0, 1 where something is wrong with what was looked at or asked for, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="lightvision", description=__doc__, allow_abbrev=False)
    groups = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, add in ALONE.items():
        add(groups, name)
    for name, (summary, commands) in GROUPS.items():
        group = groups.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        members = group.add_subparsers(required=True, metavar="ACTION")
        for action, add in commands.items():
            add(members, action)
    arguments = vars(parser.parse_args())
    try:
        status = arguments.pop("run")(**arguments)
    except Refusal as refusal:
        sys.exit("lightvision: " + " ".join(str(refusal).split()))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        sys.exit(f"lightvision: {error.strerror or error}{where}")
    sys.exit(status)


if __name__ == "__main__":
    main()
