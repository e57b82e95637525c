"""A bell that records its messages, for tests of the relay alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.config import get_settings
from app.jobs.relay import Message
from tests.service import eventually


class Recorder:
    def __init__(self, *, room: int = 0) -> None:
        self.messages: list[Message] = []
        self.rung = 0
        self.failures = 0
        self.down = False
        self.hears = asyncio.Event()
        self.hears.set()
        self._room = room

    @staticmethod
    def backends() -> set[str]:
        return set(get_settings().queues.values())

    async def ring(self, messages: Sequence[Message]) -> None:
        await self.hears.wait()
        if self.down:
            self.failures += 1
            raise ConnectionError("down")
        self.rung += 1
        self.messages += messages

    async def ping(self) -> None: ...

    def notes(self, queue: str, number: int) -> int:
        return min(number, self._room)

    async def received(self, message: Message) -> None:
        async def there() -> bool:
            return message in self.messages

        await eventually(there)
