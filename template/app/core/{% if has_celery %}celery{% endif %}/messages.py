"""Sends one message for each job, with its task's name and its id. The row decides all else.

Rows note that a message was sent, so that a queue in the broker has about CELERY_QUEUE_LIMIT of
them, however many rows wait. The other due jobs get messages when there is room, oldest first.

To find lost messages, a worker sends a checkpoint into the queue behind them. When that arrives,
messages that were sent long before it have arrived or are lost: the late ones are sent again.
"""

from __future__ import annotations

import asyncio
import mmap
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar
from uuid import UUID

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from app.config import get_settings
from app.core.celery import broker, rows
from app.core.celery.rows import Room, State
from app.core.concurrency import to_the_end
from app.core.control import control
from app.core.outages import tell
from app.jobs.backends import HEAD_START, Message, metrics, registry

log = structlog.get_logger(__name__)

T = TypeVar("T")

CHECKPOINT = "jobs.checkpoint"  # a task of Celery's; its arguments are a queue and a time

OFTEN = 24  # checkpoints in a row that are sent without a growing pause

# A worker's main process shares this memory with its pool. It says whether the broker takes no
# messages, and whether some that it took are late.
_shared = mmap.mmap(-1, 2)

# A send that was given up goes on in its thread, and the next one waits for it.
_sending = Lock()

# Jobs of another release whose messages a worker's main process got and dropped.
unknown: deque[UUID] = deque()


def broker_is_away() -> bool:
    """Whether the main process of this worker can't send."""
    return _shared[0] == 1


def messages_are_late() -> bool:
    """Whether jobs of this worker's queues wait although their message was sent seconds ago."""
    return _shared[1] == 1


class CeleryBell:
    """Sends a message for each row that notes one. A row notes one while its queue has room."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._limit = get_settings().celery_queue_limit
        self.queues = [name for name, by in get_settings().queues.items() if by == "celery"]
        self._room = dict.fromkeys(self.queues, 0)
        self._count_again = asyncio.Event()
        self._count_again.set()

    async def ring(self, messages: Sequence[Message]) -> None:
        """Send the messages that rows note. A worker finds the other jobs that were committed."""
        left = deque(message for message in messages if message.noted)
        try:
            await asyncio.to_thread(_send, self.app, left)
        except BaseException:
            unsent = [message.id for message in left]
            left.clear()  # a thread that was given up ends with the message that it is at
            await to_the_end(control(lambda connection: rows.forget(connection, unsent)))
            raise

    async def ping(self) -> None:
        await _in_time(_ping, self.app)

    def notes(self, queue: str, number: int) -> int:
        self._count_again.set()
        noted = max(0, min(number, self._room[queue]))
        self._room[queue] -= noted
        return noted

    async def count_on(self) -> None:
        """Count the room again after this process has submitted jobs."""
        while True:
            await self._count_again.wait()
            self._count_again.clear()
            with suppress(SQLAlchemyError):
                await self.count()
            await asyncio.sleep(get_settings().relay_interval)

    async def count(self) -> list[State]:
        """Count how full the queues are."""
        limit, queues = self._limit, self.queues
        found = await control(lambda connection: rows.states(connection, queues, limit))
        self._room = {each.queue: 0 if each.paused else limit - each.sent for each in found}
        return found

    async def fill(self, tasks: Sequence[str] = ()) -> bool:
        """Send messages for rows that have none. Returns whether there may be more."""
        room = await self._room_of(tasks or list(registry()))
        noted = await control(lambda connection: rows.note(connection, room))
        async with asyncio.timeout(get_settings().push_timeout):
            await self.ring(noted)
        return len(noted) == rows.BATCH

    async def _room_of(self, tasks: Sequence[str]) -> Room:
        """A task with `max_running` has no more messages under way than jobs that may run."""
        bounds = {name: registry()[name].max_running for name in tasks}
        bounded = [name for name, bound in bounds.items() if bound is not None]
        queues = [queue for queue, room in self._room.items() if room > 0]
        sent = await control(lambda each: rows.sent_of(each, self.queues, bounded))
        rooms = {
            (queue, name): self._room[queue] if bound is None else bound - sent.get(name, 0)
            for queue in queues
            for name, bound in bounds.items()
        }
        return {pair: room for pair, room in rooms.items() if room > 0}


class Keeper:
    """Keeps the queues filled, and looks for lost messages. A worker's main process runs it."""

    def __init__(self, bell: CeleryBell) -> None:
        self._bell = bell
        self._checked: dict[str, tuple[float, int]] = {}  # by queue: when, how often in a row

    async def run(self) -> None:
        """Go on until this is cancelled."""
        while True:
            more = await to_the_end(self._step_safely())
            if not more:
                await asyncio.sleep(get_settings().relay_interval)

    async def _step_safely(self) -> bool:
        """Tell the pool when the broker is away: its processes then look for jobs themselves."""
        try:
            more = await self._step()
        except SQLAlchemyError as error:
            tell("keeper.failed", error)
            return False
        except Exception as error:
            metrics.BELLS_FAILED.add("celery")
            if not broker_is_away():
                log.warning("bell.failed", error=repr(error).splitlines()[0])
            _shared[0] = 1
            return False
        _shared[0] = 0
        return more

    async def _step(self) -> bool:
        if broker_is_away():
            await self._bell.ping()
        if others := [unknown.popleft() for _ in range(len(unknown))]:
            await control(lambda connection: rows.forget(connection, others))
        states = await self._bell.count()
        _shared[1] = any(state.late for state in states)
        for state in states:
            await self._check(state)
        return await self._bell.fill()

    async def _check(self, state: State) -> None:
        """While messages are late, send checkpoints, at growing intervals unless many are lost."""
        last, times = self._checked.get(state.queue, (0.0, 0))
        if state.late is None:
            self._checked.pop(state.queue, None)
        elif time.monotonic() - last > HEAD_START:
            self._checked[state.queue] = (time.monotonic(), times + 1)
            depth = await _in_time(_depth, self._bell.app, state.queue)
            most_are_lost = times < OFTEN and depth * 2 < state.sent
            if most_are_lost or (times + 1).bit_count() == 1:
                await _in_time(_send_checkpoint, self._bell.app, state)


async def _in_time(ask: Callable[..., T], *args: Any) -> T:
    """Ask the broker, in a thread. Raises TimeoutError if it is silent."""
    async with asyncio.timeout(get_settings().push_timeout):
        return await asyncio.to_thread(ask, *args)


def _send(app: Celery, left: deque[Message]) -> None:
    with _sending, app.producer_or_acquire() as producer:
        while message := _next_of(left):
            name, arguments = message.task, [str(message.id)]
            try:
                _send_task(app, producer, name, arguments, message.queue, task_id=str(message.id))
            except BaseException:
                left.appendleft(message)
                raise


def _next_of(left: deque[Message]) -> Message | None:
    with suppress(IndexError):  # nothing is left, or the send was given up
        return left.popleft()
    return None


def _send_checkpoint(app: Celery, state: State) -> None:
    late = state.late and state.late.isoformat()
    with _sending, app.producer_or_acquire() as producer:
        _send_task(app, producer, CHECKPOINT, [state.queue, late], state.queue)


def _send_task(
    app: Celery, producer: Any, name: str, arguments: list[Any], queue: str, **options: str
) -> None:
    once = {"ignore_result": True, "retry": False, "producer": producer}
    app.send_task(name, arguments, queue=queue, **once, **options)


def _depth(app: Celery, queue: str) -> int:
    """How many messages the queue has. A queue that doesn't exist yet has none."""
    with _sending, app.connection_for_write() as connection:
        try:
            declared = connection.default_channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return 0
        return int(declared.message_count)


def _ping(app: Celery) -> None:
    with app.connection_for_write() as connection:
        broker.check(connection)
