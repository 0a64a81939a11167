"""`python -m stages.core.tracking` sends to MLflow what waits, and follows what runs."""

import argparse
import os

from filelock import FileLock, Timeout

from stages.core.running import journal
from stages.core.running.messenger import COMMAND
from stages.core.tracking import provenance
from stages.core.tracking.forwarding import Forwarder

LINGER = 6.0  # the next stage of a pipeline is there before this, and finds MLflow already imported
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Send what waits to MLflow, and follow what runs.")
    parser.add_argument("--linger", action="store_true", help="stay some seconds for the next stage")
    arguments = parser.parse_args()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    home = journal.home()
    home.mkdir(parents=True, exist_ok=True)
    provenance.witness(home)
    os.chdir(home.parent)  # MLflow resolves mlflow.db and mlruns against the current folder
    try:
        with FileLock(home / "forwarding.lock", timeout=3):
            os.nice(5)
            print(Forwarder(home).follow(LINGER if arguments.linger else 0), flush=True)
    except Timeout:
        print("MLflow: another forwarder is at work")


if __name__ == "__main__":
    main()
