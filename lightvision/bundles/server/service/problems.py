"""Why a request is not answered: a status and one line. What is full says when to come again."""

from fastapi import Request
from fastapi.responses import JSONResponse

RETRY_AFTER = "1"  # seconds
BUSY = 503


class Problem(Exception):
    """`close` where the rest of what the client sends is not wanted any more."""

    def __init__(self, status: int, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.close = status, message, close


def answer(status: int, message: str, close: bool = False) -> JSONResponse:
    headers = {"Connection": "close"} if close else {}
    return JSONResponse(
        {"error": " ".join(message.split())},
        status,
        headers | ({"Retry-After": RETRY_AFTER} if status == BUSY else {}),
    )


async def handle(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Problem)  # noqa: S101 - what it is registered for
    return answer(problem.status, problem.message, problem.close)
