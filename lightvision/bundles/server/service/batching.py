"""Pictures of many requests are asked about together, as many as have come while the network was busy.

Who finds the queue full is told so at once: nobody waits for what would come too late.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from .problems import BUSY, Problem
from .settings import Settings

Waiting = tuple[np.ndarray, asyncio.Future[np.ndarray]]


class Batcher:
    """`answer` is of uint8 [n, size, size, 3], and runs in a thread of its own: one batch at a time."""

    def __init__(
        self, answer: Callable[[np.ndarray], np.ndarray], settings: Settings, seen: Callable[[int], None]
    ) -> None:
        self._answer, self._settings, self._seen = answer, settings, seen
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._work = asyncio.create_task(self._forever())

    @property
    def alive(self) -> bool:
        return self._work is not None and not self._work.done()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    async def ask(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probabilities of each; all of them find room, or none is taken in."""
        if self.waiting + len(images) > self._settings.queue:
            raise Problem(BUSY, f"{self.waiting} pictures wait already: come again")
        loop = asyncio.get_running_loop()
        asked = [(image, loop.create_future()) for image in images]
        for one in asked:
            self._queue.put_nowait(one)
        try:
            return await asyncio.gather(*(future for _, future in asked))
        finally:
            for _, future in asked:
                future.cancel()

    async def close(self) -> None:
        """Whoever still waits is answered first."""
        await self._queue.join()
        if self._work:
            self._work.cancel()
            with suppress(asyncio.CancelledError):
                await self._work
        self._thread.shutdown()

    async def _forever(self) -> None:
        while True:
            batch = await self._gathered()
            try:
                await self._answered([one for one in batch if not one[1].done()])
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _gathered(self) -> list[Waiting]:
        batch = [await self._queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.wait_milliseconds / 1e3):
                while len(batch) < self._settings.batch:
                    batch.append(await self._queue.get())
        while len(batch) < self._settings.batch and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    async def _answered(self, batch: Sequence[Waiting]) -> None:
        """Whatever goes wrong is the requests' to tell; the next batch is another."""
        if not batch:
            return
        self._seen(len(batch))
        images = np.stack([image for image, _ in batch])
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, images)
        except Exception as error:  # noqa: BLE001 - it is raised again where it was asked
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
