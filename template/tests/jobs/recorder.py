"""A transport that keeps what the relay hands over, to look at the relay alone."""

from __future__ import annotations

from collections.abc import Sequence

from app.config import get_settings
from app.jobs.relay import Message
from tests.service import eventually


class Recorder:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.down = False
        self.holds: int | None = None

    @staticmethod
    def backends() -> set[str]:
        return set(get_settings().queues.values())

    async def push(self, messages: Sequence[Message]) -> None:
        if self.down:
            raise ConnectionError("down")
        self.messages += messages

    async def depth(self, queue: str) -> int | None:
        return self.holds

    async def ping(self) -> None: ...

    async def received(self, message: Message) -> None:
        async def there() -> bool:
            return message in self.messages

        await eventually(there)
