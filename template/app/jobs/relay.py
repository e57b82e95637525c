"""Rings a bell for the jobs that this process commits, so that a host looks for them at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from app.config import get_settings
from app.core.concurrency import in_background
from app.jobs.metrics import BELLS_FAILED

if TYPE_CHECKING:
    from app.jobs.host import Host

log = structlog.get_logger(__name__)

_COMMITTING = "jobs to ring for after the commit"
_SUBMITTED = "how many jobs of which task each transaction since the last commit submitted"

BATCH = 1000  # jobs that one ring is about
PAUSE = 0.005  # seconds after a ring: what is committed meanwhile is rung for together


@dataclass(frozen=True, slots=True)
class Message:
    """A job that was committed, with its task and its queue.

    `noted`: its row says that a message was sent for it.
    """

    id: UUID
    task: str
    queue: str
    noted: bool = False


class Bell(Protocol):
    """A back end's way to wake a host. The table says what there is to do."""

    async def ring(self, messages: Sequence[Message]) -> None:
        """Wake a host or raise, within a few seconds. One ring too many is harmless."""

    async def ping(self) -> None:
        """Raise unless the broker answers and takes messages."""

    def notes(self, queue: str, number: int) -> int:
        """For how many of so many new jobs a message is sent, which their rows are to note."""


class InProcess:
    """The bell of a host that runs in the process that rings."""

    def __init__(self, host: Host) -> None:
        self.host = host

    async def ring(self, messages: Sequence[Message]) -> None:
        self.host.ring()

    async def ping(self) -> None:
        """There is no broker."""

    def notes(self, queue: str, number: int) -> int:
        return 0


class _Channel:
    """A bell, and the messages to ring it for. A silent broker holds up no other channel."""

    def __init__(self, name: str, bell: Bell) -> None:
        self.name, self.bell = name, bell
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._failing = False

    def put(self, message: Message | None) -> None:
        self._messages.put_nowait(message)

    async def run(self) -> None:
        while True:
            await self._ring_for(await self._messages.get())
            try:
                await asyncio.sleep(PAUSE)
            except asyncio.CancelledError:  # the process ends
                await self._ring_for(None)
                raise

    async def _ring_for(self, first: Message | None) -> None:
        batch = [first]
        while not self._messages.empty() and len(batch) < BATCH:
            batch.append(self._messages.get_nowait())
        await self._ring([message for message in batch if message])

    async def _ring(self, batch: list[Message]) -> None:
        try:
            async with asyncio.timeout(get_settings().push_timeout):
                await self.bell.ring(batch)
        except Exception as error:  # hosts look by themselves, only later
            BELLS_FAILED.add(self.name)
            if not self._failing:
                log.warning("bell.failed", backend=self.name, error=repr(error))
            self._failing = True
        else:
            self._failing = False


class Relay:
    """The bells of this process, each for the queues that its back end carries."""

    def __init__(self, bells: Mapping[str, Bell]) -> None:
        self.bells = bells
        self._loop = asyncio.get_running_loop()
        self._channels = {name: _Channel(name, each) for name, each in bells.items()}
        self._by_queue = {
            queue: self._channels[backend]
            for queue, backend in get_settings().queues.items()
            if backend in bells
        }

    def notes(self, queue: str, number: int) -> int:
        return self._by_queue[queue].bell.notes(queue, number) if queue in self._by_queue else 0

    def ring(self, messages: Sequence[Message]) -> None:
        """Ring for committed jobs. Any thread may call it. It never waits."""
        for message in messages:
            if message.queue in self._by_queue:
                self._loop.call_soon_threadsafe(self._by_queue[message.queue].put, message)

    def ring_all(self) -> None:
        """Ring every bell, for no job in particular."""
        for channel in self._channels.values():
            channel.put(None)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:  # unlike gather, it waits for what it cancels
            for channel in self._channels.values():
                group.create_task(channel.run())


_current: Relay | None = None


def current_relay() -> Relay | None:
    """The relay of this process, where one runs."""
    return _current


def any_job_of(queue: str) -> Message:
    """A message for a queue, about no job in particular."""
    return Message(UUID(int=0), "", queue)


def ring_after_commit(session: Session, *messages: Message) -> None:
    """Ring for these jobs in this process when the session commits."""
    session.info.setdefault(_COMMITTING, []).extend(messages)


def note_submitted(session: Session, task: str, number: int) -> None:
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info.setdefault(_SUBMITTED, {}).setdefault(transaction, Counter())[task] += number


def warn_of_uncommitted(session: AsyncSession) -> None:
    """Log jobs that were neither committed nor rolled back: closing the session loses them."""
    submitted: Counter[str] = sum(session.info.get(_SUBMITTED, {}).values(), Counter())
    if number := submitted.total():
        said = "1 job was" if number == 1 else f"{number} jobs were"
        lost = f"{said} submitted but never committed: {', '.join(submitted)}"
        log.warning("session.uncommitted", lost=lost, todo="await session.commit()")


@event.listens_for(Session, "after_commit")
def _ring_for_committed(session: Session) -> None:
    if session.in_nested_transaction():  # a released SAVEPOINT is not a commit
        return
    session.info.pop(_SUBMITTED, None)
    messages = session.info.pop(_COMMITTING, ())
    if here := current_relay():
        here.ring(messages)


@event.listens_for(Session, "after_soft_rollback")
def _forget_rolled_back(session: Session, previous: SessionTransaction) -> None:
    if previous.parent is None:
        session.info.pop(_COMMITTING, None)
    submitted = session.info.get(_SUBMITTED, {})
    for transaction in [each for each in submitted if _is_within(each, previous)]:
        del submitted[transaction]


def _is_within(transaction: SessionTransaction | None, outer: SessionTransaction) -> bool:
    """A savepoint that was released belongs to what it was in."""
    while transaction and transaction is not outer:
        transaction = transaction.parent
    return transaction is outer


@asynccontextmanager
async def relaying(bells: Mapping[str, Bell]) -> AsyncIterator[Relay]:
    """Ring these bells for the jobs that this process commits."""
    global _current
    _current = relay = Relay(bells)
    try:
        async with in_background(relay.run()):
            yield relay
    finally:
        _current = None
