"""Coroutines and threads that run beside the rest of a process, and the heartbeats of its loops.

Each endless loop of the engine touches a file of its own in the folder HEARTBEATS. By these files
the health of a process that serves no port can be checked, without an interpreter:
`find /tmp/heartbeats -type f -mmin +0.5 -exec false {} +` fails when a file is older than half a
minute, and when there is none.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import WeakSet

import structlog

from app.config import get_settings

log = structlog.get_logger(__name__)

T = TypeVar("T")


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
    """Let a step finish before a cancellation takes effect, so that no claim stays half done."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # asyncio logs an error that nobody asks for
        raise


async def left_after(seconds: float, tasks: set[asyncio.Task[T]]) -> set[asyncio.Task[T]]:
    """Wait for so many seconds at most. Returns those of the tasks that have not ended."""
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else tasks


_turned: dict[str, float] = {}


def heartbeat(loop: str) -> None:
    """Say that this loop still runs. It never raises: without the file the check fails anyway."""
    _turned[loop] = time.monotonic()
    if folder := get_settings().heartbeats:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / loop).touch()


def forget_loops() -> None:
    """Forget all loops, because some end now. Those that go on say so again."""
    _turned.clear()


def stalled() -> dict[str, float]:
    """The seconds since each loop of this process last said that it runs."""
    now = time.monotonic()
    return {loop: now - turned for loop, turned in list(_turned.items())}


_abandoned: WeakSet[threading.Thread] = WeakSet()


def abandoned() -> int:
    """How many threads still run although nobody waits for them. Nothing can end a thread."""
    return sum(thread.is_alive() for thread in _abandoned)


async def in_thread(call: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, but a call that never returns doesn't keep the process from ending.

    When this is cancelled the call goes on, and its result is lost.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()
    context = copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(call))
        except StopIteration as error:  # no future of asyncio takes it
            stopped = RuntimeError("the call raised StopIteration")
            done.set_exception(stopped.with_traceback(error.__traceback__))
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=run, name="job", daemon=True)
    thread.start()
    try:
        return await asyncio.wrap_future(done)
    except asyncio.CancelledError:
        if not done.done():  # else the call itself has raised it
            _abandoned.add(thread)
            log.warning("thread.abandoned", threads=abandoned())
        raise
