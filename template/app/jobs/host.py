"""A host looks for due jobs of its queues, and runs as many at once as it has slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row

from app.config import get_settings
from app.core.concurrency import forget_loops, heartbeat, in_background, left_after, to_the_end
from app.core.control import Control, control
from app.core.outages import tell
from app.jobs import claims
from app.jobs.contract import find_task
from app.jobs.looks import Lookout, Taken, Wanted
from app.jobs.metrics import TRIES
from app.jobs.outcomes import Outcomes
from app.jobs.processes import Presence
from app.jobs.runner import attempt
from app.jobs.running import Claim, claim_of
from app.jobs.watch import watching

log = structlog.get_logger(__name__)

ROUNDS = 4  # of the event loop before a look: jobs that end in them leave their slots to it, too
TELL_EVERY = 0.05  # seconds
AT_LIMIT = 0.1  # seconds for which a host asks for no job of a task that is at its `max_running`


class Host:
    """Runs the jobs of a back end's queues in this process."""

    last_writes = 5.0  # seconds in which jobs are handed back after the stop grace

    def __init__(self, backend: str, slots: int, statements: Control = control) -> None:
        self._control, settings = statements, get_settings()
        self._queues = [queue for queue, name in settings.queues.items() if name == backend]
        self._slots, self._lease, self._interval = slots, settings.lease, settings.relay_interval
        self._claims: dict[UUID, Claim] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._lookout, self._outcomes = Lookout(), Outcomes(statements)
        self._rung, self._full, self._owed = asyncio.Event(), False, False
        self._stopped: float | None = None
        self._told, self._extended = 0.0, time.monotonic()
        self._at_limit: dict[str, float] = {}
        # Each of these jobs may be what kills its workers: they run one at a time.
        self._suspects: set[UUID] = set()
        self.tell_others: Callable[[], None] | None = None  # called when more may be due
        self.at_return: Callable[[], None] | None = None  # called when a task has returned

    @property
    def free(self) -> int:
        return self._slots - len(self._running)

    @property
    def heeds_bells(self) -> bool:
        """False while it is full, and just after it rang a bell for other hosts itself."""
        return self.free > 0 and time.monotonic() - self._told > TELL_EVERY

    def ring(self) -> bool:
        """Look at once. Returns whether a slot is free."""
        self._rung.set()
        return self.free > 0

    def stop_looking(self) -> None:
        """Take no more jobs. The stop grace begins."""
        self._stopped = self._stopped or time.monotonic()
        forget_loops()

    async def look_on(self) -> None:
        """Look at each bell, when a full host gets a slot, and when a job falls due or may have."""
        while True:
            self._rung.clear()
            pause = await to_the_end(self._look_safely())
            heartbeat("host")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), pause)
            for _ in range(ROUNDS):
                await asyncio.sleep(0)

    async def _look_safely(self) -> float:
        """Look. Returns the seconds to wait, also if the database is away or has no tables yet."""
        try:
            return await self._look()
        except Exception as error:
            tell("host.look_failed", error)
            return self._interval

    async def _look(self) -> float:
        self._full = self.free <= 0
        if self._full or not self._may_take():
            return self._interval
        if self._owed:  # else a backlog of other jobs would take each slot
            self._owed = False
            await self._take_one_by_one()
        wait = await self._take_at_once() if self.free and self._may_take() else None
        if self._full:
            self._tell_others()
            if self.free:  # slots that got free meanwhile
                self._rung.set()
        return min(self._interval, self._interval if wait is None else wait)

    async def _take_at_once(self) -> float | None:
        wanted, free = Wanted.by_host(self._queues, self._at_limit), self.free
        found = await self._control(lambda connection: self._lookout.look(connection, wanted, free))
        for taken in found.taken:
            self._start(taken)
        self._full, self._owed = len(found.taken) == free, found.one_by_one and not self.free
        if found.one_by_one and self.free:
            await self._take_one_by_one()
        return found.wait

    def _tell_others(self) -> None:
        if self.tell_others and time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            self.tell_others()

    def _may_take(self) -> bool:
        """A host that can't extend its leases takes no jobs: it would lose them as well."""
        extends = not self._claims or time.monotonic() - self._extended < self._lease / 2
        return extends and self._stopped is None

    async def _take_one_by_one(self) -> None:
        wanted, free = Wanted.by_host(self._queues, self._at_limit), self.free
        rows = await self._control(
            lambda connection: claims.due_one_by_one(connection, wanted, free, not self._suspects)
        )
        taken = 0
        for row in rows:
            if self._stopped or not self.free:
                break
            suspect = claims.is_suspect(row.crashes)
            if not suspect or not self._suspects:
                taken += await self._take(row, suspect)
        self._full = self._full or not self.free or taken == free

    async def _take(self, row: Row[Any], suspect: bool) -> bool:
        is_at_limit = self._at_limit.get(row.task, 0) > time.monotonic()
        if is_at_limit or not (taken := await self._claim(row.id, row.task)):
            return False
        if suspect:
            self._suspects.add(row.id)
        self._start(taken)
        return True

    async def _claim(self, job_id: UUID, name: str) -> Taken | None:
        bound = find_task(name).max_running
        taken = await self._control(
            lambda connection: claims.claim(connection, job_id, name, bound),
            transaction=bound is not None,
        )
        if taken is None and bound is not None:
            self._at_limit[name] = time.monotonic() + AT_LIMIT
        return taken

    def _start(self, taken: Taken) -> asyncio.Task[None]:
        TRIES.add(taken.task)
        claim = claim_of(taken)
        self._claims[claim.id] = claim
        claim.running = asyncio.create_task(self._run(claim))
        self._running.add(claim.running)
        return claim.running

    async def _run(self, claim: Claim) -> None:
        """Free the slot when the task has returned. Keep the lease until its outcome is written."""
        try:
            outcome = await attempt(claim)
            self._free_slot(claim)
            if outcome:
                await self._outcomes.end(claim, outcome)
            await self._outcomes.tell(claim)
        finally:
            self._free_slot(claim)
            if self._claims.get(claim.id) is claim:
                del self._claims[claim.id]

    def _free_slot(self, claim: Claim) -> None:
        if claim.running in self._running:
            self._running.discard(claim.running)
            one_by_one = claim.id in self._suspects or claim.task.max_running is not None
            self._suspects.discard(claim.id)
            self._at_limit.pop(claim.task.name, None)
            if self._full or one_by_one:
                self._rung.set()
            if self.at_return:
                self.at_return()

    async def keep_leases(self) -> None:
        """Extend the leases of all jobs in one statement. Stop the jobs whose lease was lost."""
        while True:
            try:
                await to_the_end(self._extend())
                await asyncio.sleep(self._lease / 3)
            except Exception as error:
                tell("host.leases_not_extended", error)
                await asyncio.sleep(min(0.5, self._lease / 6))

    async def _extend(self) -> None:
        begun, held = time.monotonic(), dict(self._claims)
        fences = [(job_id, each.attempt) for job_id, each in held.items() if not each.is_stuck]
        kept = await control(lambda connection: claims.extend(connection, fences)) if fences else {}
        for claim in (held[job_id] for job_id in held.keys() - kept):
            if claim.running and claim.running in self._running and not claim.fenced:
                claim.lost = True
                claim.running.cancel()
        self._extended = begun
        if locked := [fence for fence in fences if kept.get(fence[0]) is False]:
            await control(lambda connection: claims.extend(connection, locked, waits=True))

    async def drain(self) -> None:
        """Give running jobs the stop grace to end, then hand the rest back."""
        self.stop_looking()
        await asyncio.sleep(0)  # jobs that were just taken must have begun
        left = (self._stopped or 0) + get_settings().stop_grace - time.monotonic()
        await left_after(max(0, left), self._held())
        await self.hand_back()

    async def hand_back(self) -> None:
        """A job that doesn't end, or can't be written, is left: it runs again after its lease."""
        self.stop_looking()
        for late in self._running:
            late.cancel()
        if lost := await left_after(self.last_writes, self._held()):
            log.warning("host.jobs_left", jobs=len(lost))
            self._outcomes.stop()
            for each in lost:
                each.cancel()

    def _held(self) -> set[asyncio.Task[None]]:
        return {claim.running for claim in self._claims.values() if claim.running}


@asynccontextmanager
async def hosting(backend: str, slots: int | None = None) -> AsyncIterator[Host]:
    """Run a host. At the end running jobs get the stop grace; then the rest is handed back."""
    host = Host(backend, slots or get_settings().max_jobs)
    presence = Presence(backend, host._slots, lambda: len(host._running))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watching(presence))
        await stack.enter_async_context(in_background(host.keep_leases()))
        stack.push_async_callback(host.drain)
        await stack.enter_async_context(in_background(host.look_on()))
        stack.callback(host.stop_looking)
        yield host
