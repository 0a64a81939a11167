"""What Prefect's server answers to who asks for a job, in words; what is worth another try is not told as an end."""

from typing import Any

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from flows import hands
from flows.core.repository import Unreachable
from stages.core.running.errors import Refusal
from tests.flows.test_job import WORK

REQUEST = httpx.Request("POST", "http://there")


def answered(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (ObjectNotFound(answered(404)), Refusal, "no deployment job/gpu: `prefect deploy --all`"),
        (answered(409), Refusal, "job/gpu is of another version: `prefect --no-prompt deploy --all`"),
        (answered(403), httpx.HTTPStatusError, "no"),
        (answered(503), Unreachable, "answers 503"),
        (httpx.ConnectError("away"), Unreachable, "does not answer"),
    ],
)
def test_answers(monkeypatch: pytest.MonkeyPatch, answer: Exception, kind: type[Exception], told: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise answer

    monkeypatch.setattr(hands, "run_deployment", refuse)
    with pytest.raises(kind, match=told):
        hands.Deployed([], None).ask(WORK, "key/1", "gpu")
