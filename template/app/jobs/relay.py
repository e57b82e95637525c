"""Pushes committed jobs to their back end, and takes back those whose worker died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import func, select, update

from app.config import get_settings
from app.core.database import IS_SQLITE, jobs_engine
from app.core.heartbeat import heartbeat
from app.jobs import table
from app.jobs.table import BATCH, Status, clock, jobs

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message:
    """All that travels: which job, and what its lane and task are called."""

    id: UUID
    task: str
    queue: str


class Transport(Protocol):
    """What a back end gives: a way to hand job ids over."""

    async def push(self, messages: Sequence[Message]) -> None:
        """Hand over or raise, within a few seconds. The same message twice is harmless."""

    async def depth(self, queue: str) -> int | None:
        """How many messages wait there; None where the same message is never there twice."""

    async def ping(self) -> None:
        """Raise unless the broker answers."""


class _Channel:
    """One transport with a queue of its own, so that a silent broker holds up no other."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.name, self.transport = name, transport
        self._messages: asyncio.Queue[tuple[Message, bool]] = asyncio.Queue()
        self._failing = False

    def put(self, message: Message, again: bool = False) -> None:
        self._messages.put_nowait((message, again))

    async def run(self) -> None:
        while True:
            batch = [await self._messages.get()]
            while not self._messages.empty() and len(batch) < BATCH:
                batch.append(self._messages.get_nowait())
            new = [message for message, again in batch if not again]
            await self._push([message for message, again in batch if again], self._push_again)
            await self._push(new, self.transport.push)

    async def _push_again(self, batch: Sequence[Message]) -> None:
        """Only as many as the broker has lost, or a long queue would grow longer and longer."""
        for queue in {message.queue for message in batch}:
            messages = [message for message in batch if message.queue == queue]
            depth = await self.transport.depth(queue)
            if depth is not None:
                expected = await _count_pushed(queue, depth + len(messages))
                messages = messages[: max(0, expected - depth)]
            await self.transport.push(messages)

    async def _push(
        self, batch: list[Message], push: Callable[[Sequence[Message]], Awaitable[None]]
    ) -> None:
        if not batch:
            return
        try:
            async with asyncio.timeout(get_settings().push_timeout):
                await push(batch)
        except Exception as error:
            if not self._failing:
                log.warning("push failed, trying on", backend=self.name, error=repr(error))
            self._failing = True
            await to_the_end(_logged(_postpone([message.id for message in batch])))
        else:
            self._failing = False


class Relay:
    """This process's end of the jobs table. Any number of processes may run one."""

    def __init__(self, transports: Mapping[str, Transport]) -> None:
        self.transports = transports
        self._loop = asyncio.get_running_loop()
        self._channels = {name: _Channel(name, each) for name, each in transports.items()}
        self._by_queue = {
            queue: self._channels[backend]
            for queue, backend in get_settings().queues.items()
            if backend in transports
        }
        self._looked, self._judges = time.monotonic(), 0.0

    def carries(self, queue: str) -> bool:
        return queue in self._by_queue

    def push(self, messages: Sequence[Message]) -> None:
        """Queue committed jobs for pushing; from any thread, never waits."""
        for message in messages:
            if self.carries(message.queue):
                self._loop.call_soon_threadsafe(self._by_queue[message.queue].put, message)

    async def poll(self) -> None:
        """Look at the rows that are due, again and again."""
        while True:
            taken = await to_the_end(_logged(self._take()))
            heartbeat("relay")
            if not taken or len(taken) < BATCH:
                await asyncio.sleep(get_settings().relay_interval)

    async def _take(self) -> list[Message]:
        async with jobs_engine.begin() as connection:
            if IS_SQLITE:  # here it waits for whoever writes
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            due = table.take_due(list(self._by_queue), judge_leases=self._sees())
            rows = (await connection.execute(due)).all()
        for row in rows:
            if row.status == Status.DEAD:
                log.error("job dead", job_id=str(row.id), task=row.task, error=row.error)
            else:
                message = Message(row.id, row.task, row.queue)
                self._by_queue[row.queue].put(message, again=row.pushes > 1)
        return [Message(row.id, row.task, row.queue) for row in rows]

    def _sees(self) -> bool:
        """Not after it was blocked: nobody could extend a lease either, and now they will."""
        now, settings = time.monotonic(), get_settings()
        if now - self._looked > settings.relay_interval + settings.lease / 3:
            self._judges = now + settings.lease / 2
        self._looked = now
        return now >= self._judges

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:  # unlike gather, it waits for what it cancels
            group.create_task(self.poll())
            for channel in self._channels.values():
                group.create_task(channel.run())


_current: Relay | None = None


def current() -> Relay | None:
    """The relay of this process, where one runs."""
    return _current


@asynccontextmanager
async def relaying(transports: Mapping[str, Transport]) -> AsyncIterator[Relay]:
    """Push what this process commits, and whatever else is due on these back ends."""
    global _current
    _current = relay = Relay(transports)
    try:
        async with in_background(relay.run()):
            yield relay
    finally:
        _current = None


@asynccontextmanager
async def in_background(endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine that never returns beside the body, and end it with the body."""
    task = asyncio.create_task(endless)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def to_the_end(step: Coroutine[Any, Any, T]) -> T:
    """Let a step finish before a cancellation takes effect: no half-done claim stays behind."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _postpone(ids: Sequence[UUID]) -> None:
    async with jobs_engine.begin() as connection:
        await connection.execute(
            update(jobs)
            .where(jobs.c.id.in_(ids), jobs.c.status == Status.PENDING)
            .values(wake_at=clock(1), pushes=1)  # it may have got through, whole or in part
        )


async def _count_pushed(queue: str, limit: int) -> int:
    """Jobs of this queue whose message should be in the broker; counted up to the limit."""
    pushed = jobs.c.status == Status.PENDING, jobs.c.pushes > 0, jobs.c.wake_at.is_not(None)
    rows = select(jobs.c.id).where(jobs.c.queue == queue, *pushed).limit(limit)
    async with jobs_engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(rows.subquery())) or 0


async def _logged(step: Coroutine[Any, Any, T]) -> T | None:
    """A database that is away or has no tables yet is waited for, not fatal."""
    try:
        return await step
    except Exception as error:
        log.warning("relay: database step failed, trying again", error=repr(error).splitlines()[0])
        return None
