"""A job as a Prefect flow: what a worker runs, whatever its host; git and the DVC remote carry everything."""

import os

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Crashed, Failed

from flows import showing
from flows.core import leash
from flows.core.work import Work
from flows.core.workspace import HostTrouble, StageFailed, carry_out
from lightvision.host import Host


@flow(name="job", flow_run_name="{work.title}", validate_parameters=True)
def job(work: Work) -> State:
    """Failed where a stage said no; Crashed where somebody else may have more luck. The message says why and where."""
    logger = get_run_logger()
    context = FlowRunContext.get()
    if context and context.flow_run:
        if context.flow_run.deployment_id:
            leash.end_with_starter()  # a worker, which alone could cancel it
        os.environ["LIGHTVISION_FLOW_RUN"] = str(context.flow_run.id)
        showing.place(context.flow_run.id, Host.here().name)
    progress = showing.Progress()

    def tell(line: str) -> None:
        if progress.wants(line):
            logger.info("%s", line)
        progress.hear(line)

    try:
        sha = carry_out(work, tell)
    except StageFailed as failure:
        return Failed(message=said(str(failure)))
    except HostTrouble as trouble:
        return Crashed(message=said(str(trouble)))
    return Completed(message=said(sha), data=sha)


def said(reason: str) -> str:
    return f"{reason} [{Host.here().name}]"


def heard(message: str) -> tuple[str, str]:
    """The reason and the host of a message that `job` left."""
    reason, bracket, host = message.removesuffix("]").rpartition(" [")
    return (reason, host) if bracket else (message, "")
