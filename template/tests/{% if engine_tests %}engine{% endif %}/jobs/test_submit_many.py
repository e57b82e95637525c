"""`submit_many` makes the same rows as a `submit` for each job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Job, Jobs, StoredJob, task
from app.jobs.inserts import MANY
from app.jobs.relay import Message, relaying
from app.jobs.submit import submit_named
from app.jobs.table import jobs
from tests.engine import probes
from tests.engine.jobs.recorder import Recorder

pytestmark = pytest.mark.usefixtures("no_other_jobs")

HOUR = timedelta(hours=1)
# Texts that a driver or a database might interpret.
TEXTS = ["a", "", "é ☃ 💾", '["$[0]", null]', "{a,b}", "%s :rows", "\\u0041 \\ ' \" \n"]


@task(name="submit_many.typed")
async def typed(order: UUID, at: datetime, more: dict[str, list[int]] | None = None) -> None: ...


async def count(session: AsyncSession) -> int:
    return (await session.scalars(select(func.count()).select_from(jobs))).one()


async def like_one(session: AsyncSession, job_id: UUID) -> dict[str, Any]:
    """The values that two jobs may share. Its times are relative to `created_at`."""
    row = dict(vars(await Jobs(session).get(job_id)))
    made = row.pop("created_at")
    row |= {name: row[name] - made for name in ("run_at", "wake_at")}
    return {name: value for name, value in row.items() if name not in ("id", "args")}


async def rows(session: AsyncSession, many: Sequence[Job[Any]]) -> list[StoredJob]:
    return [await Jobs(session).get(job.id) for job in many]


@pytest.mark.parametrize("options", [{}, {"delay": HOUR}, {"queue": "orders"}], ids=str)
async def test_rows_are_the_same_as_by_submit(
    session: AsyncSession, options: dict[str, Any]
) -> None:
    many = await Jobs(session).submit_many(probes.hopeless, [(), ()], **options)
    one = await Jobs(session).submit(probes.hopeless, **options)
    expected = await like_one(session, one.id)
    assert [await like_one(session, job.id) for job in many] == [expected, expected]
    assert len({job.id for job in many}) == 2


async def test_all_jobs_are_due_at_the_given_time(session: AsyncSession) -> None:
    at = datetime.now(UTC) + HOUR
    many = await Jobs(session).submit_many(probes.hopeless, [(), ()], at=at)
    one = await Jobs(session).submit(probes.hopeless, at=at)
    expected = await Jobs(session).get(one.id)
    for row in await rows(session, many):
        assert (row.run_at, row.wake_at) == (at, expected.wake_at)


async def test_arguments_are_the_same_as_by_submit(session: AsyncSession) -> None:
    many = await Jobs(session).submit_many(probes.echo, [(text,) for text in TEXTS])
    assert [row.args for row in await rows(session, many)] == [{"text": text} for text in TEXTS]
    calls: list[tuple[Any, ...]] = [
        (UUID(int=1), datetime(2030, 1, 1, tzinfo=UTC)),
        (str(UUID(int=2)), "2030-01-01", {}),
    ]
    many_typed = await Jobs(session).submit_many(typed, calls)
    ones = [await submit_named(session, typed, typed.serialize(*call)) for call in calls]
    expected = [row.args for row in await rows(session, ones)]
    assert [row.args for row in await rows(session, many_typed)] == expected


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ((1, 2), ValueError, "text should be str, got int"),
        ((), ValueError, "text is missing"),
        (("a", 1, "too many"), TypeError, "takes 2 arguments"),
        (("a" * 70_000,), ValueError, "64 KiB"),
    ],
)
async def test_wrong_arguments_of_one_job_refuse_all(
    session: AsyncSession, wrong: tuple[Any, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await Jobs(session).submit_many(probes.echo_sync, [("a",), wrong, ("b",)])
    await session.commit()
    assert await count(session) == 0


async def test_a_plain_function_is_refused_as_by_submit(session: AsyncSession) -> None:
    async def plain(text: str) -> None: ...

    with pytest.raises(TypeError, match=r"is not a task: put @task\(\) on it"):
        await Jobs(session).submit_many(plain, [("a",)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is not a task"):
        await Jobs(session).submit_many(plain, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "nobodys"},
        {"at": datetime(2030, 1, 1)},  # noqa: DTZ001
        {"at": datetime.now(UTC), "delay": HOUR},
    ],
    ids=str,
)
async def test_wrong_options_refuse_all(session: AsyncSession, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"QUEUES|aware|not both"):
        await Jobs(session).submit_many(probes.echo, [("a",)], **options)
    await session.commit()
    assert await count(session) == 0


async def test_the_jobs_commit_and_roll_back_with_the_caller(session: AsyncSession) -> None:
    await Jobs(session).submit_many(probes.echo, [("a",)] * 5)
    await session.rollback()
    assert await count(session) == 0
    await Jobs(session).submit_many(probes.echo, [("a",)] * 5)
    await session.commit()
    assert await count(session) == 5


@pytest.mark.parametrize("number", [0, 1000, MANY + 1])
async def test_any_number_of_jobs_can_be_submitted_at_once(
    session: AsyncSession, number: int
) -> None:
    many = await Jobs(session).submit_many(probes.echo, ((str(n),) for n in range(number)))
    await session.commit()
    found = (await session.execute(select(jobs.c.id, jobs.c.args))).all()
    expected = {job.id: str(n) for n, job in enumerate(many)}
    assert {row.id: row.args["text"] for row in found} == expected
    assert len(many) == number


async def test_a_bell_rings_once_after_the_commit(session: AsyncSession) -> None:
    sent = Recorder()
    async with relaying(dict.fromkeys(Recorder.backends(), sent)):
        await Jobs(session).submit_many(probes.echo, [("a",)] * 5)
        await session.rollback()
        await Jobs(session).submit_many(probes.echo, [("a",)] * 5, delay=HOUR)
        many = await Jobs(session).submit_many(probes.echo, [("a",)] * 5)
        await session.commit()
        await sent.received(Message(many[-1].id, "probes.echo", "default"))
        assert len(sent.messages) == 1


async def test_rows_note_as_many_messages_as_there_is_room_for(session: AsyncSession) -> None:
    sent = Recorder(room=3)
    async with relaying(dict.fromkeys(Recorder.backends(), sent)):
        later = await Jobs(session).submit_many(probes.echo, [("a",)] * 5, delay=HOUR)
        many = await Jobs(session).submit_many(probes.echo, [("a",)] * 5)
        await session.commit()
        await sent.received(Message(many[-1].id, "probes.echo", "default"))
    assert [row.pushes for row in await rows(session, [*later, *many])] == [0] * 5 + [1, 1, 1, 0, 0]
    assert [message.id for message in sent.messages if message.noted] == [m.id for m in many[:3]]


async def test_a_bounded_task_gets_its_messages_as_its_jobs_end(session: AsyncSession) -> None:
    sent = Recorder(room=3)
    async with relaying(dict.fromkeys(Recorder.backends(), sent)):
        many = await Jobs(session).submit_many(probes.alone, [(0,)] * 5)
        await session.commit()
        await sent.received(Message(many[-1].id, "probes.alone", "default"))
    assert [row.pushes for row in await rows(session, many)] == [0] * 5
