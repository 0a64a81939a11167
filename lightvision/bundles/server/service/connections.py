"""Clients that never come to the end of their headers, or say nothing, hold a connection for a while and no longer."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Impatient(H11Protocol):
    """uvicorn's own, with a limit to how long it waits for a request's headers, the first and any later one."""

    header_seconds = 5.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._between_requests:
            self._begin()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _begin(self) -> None:
        """Not anew with each byte: that is what a slow client sends."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._between_requests and not self.transport.is_closing():
            self.transport.close()
