"""Bells are rung for committed jobs only. Hosts find other jobs by themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.config import get_settings
from app.jobs import Job, Jobs, Status
from app.jobs import relay as relay_module
from app.jobs.relay import Message, Relay, any_job_of, current_relay, relaying
from app.jobs.table import jobs
from tests.engine import probes
from tests.engine.jobs.recorder import Recorder
from tests.service import eventually


def bells(recorder: Recorder) -> dict[str, Recorder]:
    return dict.fromkeys(Recorder.backends(), recorder)


def message(job: Job[str], *, noted: bool = False) -> Message:
    return Message(job.id, "probes.echo", "default", noted)


async def commit_one(session: AsyncSession) -> Message:
    """Submit and commit a job; returns its message. Earlier messages are received before it."""
    job = await Jobs(session).submit(probes.echo, "a")
    await session.commit()
    return message(job)


async def rings_at_the_commit(
    session: AsyncSession, relay: Relay, sent: Recorder, job: Job[Any]
) -> None:
    relay.ring([other := Message(uuid4(), "probes.echo", "default")])
    await sent.received(other)
    assert sent.messages == [other]
    await session.commit()
    await sent.received(message(job))


async def test_it_rings_after_the_commit_and_not_before(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())) as relay:
        job = await Jobs(session).submit(probes.echo, "a")
        await rings_at_the_commit(session, relay, sent, job)


async def test_the_release_of_a_savepoint_is_no_commit(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())) as relay:
        async with session.begin_nested():
            job = await Jobs(session).submit(probes.echo, "a")
        await rings_at_the_commit(session, relay, sent, job)


async def test_it_does_not_ring_for_what_was_rolled_back(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())):
        await Jobs(session).submit(probes.echo, "a")
        await session.rollback()
        committed = await commit_one(session)
        await sent.received(committed)
        assert sent.messages == [committed]


async def test_it_does_not_ring_for_what_is_due_later(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())):
        await Jobs(session).submit(probes.echo, "a", delay=timedelta(hours=1))
        committed = await commit_one(session)
        await sent.received(committed)
        assert sent.messages == [committed]


async def test_it_rings_once_for_many(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())):
        for _ in range(20):
            last = await Jobs(session).submit(probes.echo, "a")
        await session.commit()
        await sent.received(message(last))
        assert (sent.rung, len(sent.messages)) == (1, 20)


async def test_what_is_committed_soon_after_a_ring_is_rung_for_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "PAUSE", 2)
    first, *others = (Message(uuid4(), "a", "default") for _ in range(20))
    async with relaying(bells(sent := Recorder())) as relay:
        relay.ring([first])
        await sent.received(first)
        for other in others:
            relay.ring([other])
            await asyncio.sleep(0)
        await sent.received(others[-1])
        assert (sent.rung, len(sent.messages)) == (2, 20)


async def test_it_rings_for_what_was_committed_last_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "PAUSE", 3600)
    first, last = (Message(uuid4(), "a", "default") for _ in range(2))
    async with relaying(bells(sent := Recorder())) as relay:
        relay.ring([first])
        await sent.received(first)
        relay.ring([last])
    assert sent.messages == [first, last]


async def test_it_rings_for_a_replay(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())):
        job = await Jobs(session).submit(probes.echo, "a")
        await session.execute(update(jobs).where(jobs.c.id == job.id).values(status=Status.DEAD))
        await session.commit()
        await sent.received(message(job))
        sent.messages.clear()
        await Jobs(session).replay(job.id)
        await session.commit()
        await sent.received(any_job_of("default"))


async def test_a_message_says_what_its_row_says(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder(room=1))):
        job = await Jobs(session).submit(probes.echo, "a")
        later = await Jobs(session).submit(probes.echo, "a", delay=timedelta(hours=1))
        await session.commit()
        await sent.received(message(job, noted=True))
        assert (await Jobs(session).get(job.id)).pushes == 1
        assert (await Jobs(session).get(later.id)).pushes == 0


async def test_no_row_notes_a_message_of_a_bell_that_notes_none(session: AsyncSession) -> None:
    async with relaying(bells(sent := Recorder())):
        committed = await commit_one(session)
        await sent.received(committed)
        assert (await Jobs(session).get(committed.id)).pushes == 0


async def test_a_bell_that_fails_does_no_harm_and_rings_for_the_next(
    session: AsyncSession,
) -> None:
    sent = Recorder()
    sent.down = True

    async def has_failed(times: int) -> None:
        async def so() -> bool:
            return sent.failures >= times

        await eventually(so)

    with capture_logs() as logs:
        async with relaying(bells(sent)):
            lost = await commit_one(session)
            await has_failed(1)
            await commit_one(session)
            await has_failed(2)
            assert (await Jobs(session).get(lost.id)).status == Status.PENDING
            sent.down = False
            await sent.received(await commit_one(session))
    assert [line["event"] for line in logs] == ["bell.failed"]  # each outage is logged once


async def test_a_bell_that_is_silent_is_given_up(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "push_timeout", 0.1)
    sent = Recorder()
    sent.hears.clear()
    with capture_logs() as logs:

        async def given_up() -> bool:
            return any("TimeoutError" in line["error"] for line in logs)

        async with relaying(bells(sent)):
            await commit_one(session)
            await eventually(given_up)
            sent.hears.set()
            await sent.received(await commit_one(session))


async def test_a_silent_bell_holds_up_no_other(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "push_timeout", 3600)
    monkeypatch.setattr(get_settings(), "queues", {"orders": "silent", "default": "other"})
    silent, sent = Recorder(), Recorder()
    silent.hears.clear()
    async with relaying({"silent": silent, "other": sent}):
        for _ in range(3):
            await Jobs(session).submit(probes.echo, "a", queue="orders")
            await sent.received(await commit_one(session))
        assert silent.messages == []


async def test_each_bell_is_rung_for_its_own_queues(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "queues", {"orders": "a", "default": "b", "more": "b"})
    first, second = Recorder(), Recorder()
    async with relaying({"a": first, "b": second}):
        names = ["orders", "default", "more"]
        ours = [await Jobs(session).submit(probes.echo, "a", queue=name) for name in names]
        await session.commit()
        expected = [Message(j.id, j.task, name) for j, name in zip(ours, names, strict=True)]
        for recorder, each in zip((first, second, second), expected, strict=True):
            await recorder.received(each)
    assert (first.messages, second.messages) == (expected[:1], expected[1:])


async def test_a_queue_that_this_process_has_no_bell_for_is_left_to_hosts(
    session: AsyncSession,
) -> None:
    async with relaying({}):
        job = await commit_one(session)
    assert (await Jobs(session).get(job.id)).status == Status.PENDING


async def test_it_can_be_rung_from_any_thread(request: pytest.FixtureRequest) -> None:
    loop = asyncio.get_running_loop()
    request.addfinalizer(partial(loop.set_debug, loop.get_debug()))
    loop.set_debug(True)  # the loop then raises if another thread calls it in a wrong way
    async with relaying(bells(sent := Recorder())) as relay:
        for _ in range(2):  # the second time the relay already waits
            await asyncio.to_thread(relay.ring, [committed := Message(uuid4(), "a", "default")])
            await sent.received(committed)


async def test_all_bells_can_be_rung_for_no_job_in_particular() -> None:
    async with relaying(recorders := {name: Recorder() for name in Recorder.backends()}) as relay:
        relay.ring_all()

        async def woken() -> bool:
            return all(each.rung == 1 for each in recorders.values())

        await eventually(woken)
    assert all(each.messages == [] for each in recorders.values())


async def test_a_relay_is_that_of_its_process_until_it_ends() -> None:
    assert current_relay() is None
    async with relaying({}) as relay:
        assert current_relay() is relay
    assert current_relay() is None
