"""A sweep on a cluster, as a terminal shows it: `python -m flows.watch NAME`."""

import time
from uuid import UUID

from prefect import get_client
from prefect.settings import PREFECT_UI_URL

POLL = 3.0


def link(run: UUID) -> str:
    return f"{PREFECT_UI_URL.value()}/runs/flow-run/{run}"


def follow(run: UUID, name: str) -> bool:
    """Until the coordinator's run is over; whether it completed."""
    with get_client(sync_client=True) as client:
        while True:
            state = client.read_flow_run(run).state
            if state is not None and state.is_final():
                print(f"{name}: {state.name.lower() if state.name else ''} {state.message or ''}")
                return state.is_completed()
            time.sleep(POLL)
