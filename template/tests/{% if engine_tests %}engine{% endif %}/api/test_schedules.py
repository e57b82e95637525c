from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, create_engine, insert, select, update

from app.core.database import sync_url
from app.jobs import Interval, Schedule
from app.jobs.schedules import definition_of
from app.jobs.table import schedules
from tests.engine import probes
from tests.engine.api.schedule_calls import ECHO, WEEKLY, call, create, get
from tests.service import API_ENDED, Service, eventually

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(service: Service) -> Iterator[Connection]:
    """A connection to the running service's database, in which tests set times."""
    engine = create_engine(sync_url(service.env["DATABASE_URL"]), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


async def test_a_schedule_runs_from_its_creation_to_its_deletion(service: Service) -> None:
    made = await create(service, trigger={"kind": "interval", "seconds": 1})

    async def ticked() -> dict[str, Any] | None:
        schedule = await get(service, made["id"])
        return schedule if schedule["last_job_id"] else None

    ran = await eventually(ticked)
    job = await service.job_is(ran["last_job_id"], "succeeded")
    assert (job["task"], job["result"]) == ("probes.echo", "tick")
    assert datetime.fromisoformat(ran["next_tick"]) > datetime.fromisoformat(ran["last_tick"])
    assert ran["missed_since"] is None
    assert (await call(service, "DELETE", f"/{made['id']}")).status_code == 204
    assert (await call(service, "GET", f"/{made['id']}")).status_code == 404


@pytest.mark.parametrize(
    "trigger",
    [
        WEEKLY,
        {"kind": "cron", "expression": "0 6 * jan mon-fri", "timezone": "Europe/Berlin"},
        {"kind": "calendar", "days": 0, "weeks": 0, "months": 1, "years": 0, "hour": 9}
        | {"minute": 0, "timezone": "America/New_York", "start": "2026-01-31"},
        {"kind": "date", "at": "2999-12-24T18:00:00+01:00"},
    ],
    ids=lambda trigger: str(trigger["kind"]),
)
async def test_the_four_kinds(service: Service, trigger: dict[str, Any]) -> None:
    made = await create(service, id=f"kind {uuid4()}", trigger=trigger)
    assert made["trigger"] == trigger
    assert (made["args"], made["task"]) == ({"text": "tick"}, "probes.echo")
    assert (made["paused"], made["declared"], made["problem"]) == (False, False, None)
    assert (made["misfire_grace"], made["catch_up"], made["overlap"]) == (300, "latest", "queue")
    assert datetime.fromisoformat(made["next_tick"]) > datetime.now(UTC)
    listed = (await call(service, "GET", "?limit=1000")).json()["data"]
    assert await get(service, made["id"]) == made
    assert made in listed


async def test_each_kind_has_a_schema(service: Service) -> None:
    schemas = (await service.client.get("/openapi.json")).json()["components"]["schemas"]
    trigger = schemas["ScheduleCreate"]["properties"]["trigger"]
    names = [each["$ref"].removeprefix("#/components/schemas/") for each in trigger["oneOf"]]
    assert names == ["Interval", "Cron", "CalendarInterval", "Date"]
    assert trigger["discriminator"]["propertyName"] == "kind"
    assert all("kind" in schemas[name]["required"] for name in names)
    assert {"weeks", "days", "hours", "minutes", "seconds"} < {*schemas["Interval"]["properties"]}


async def test_an_interval_in_minutes_is_stored_in_seconds(service: Service) -> None:
    made = await create(service, trigger={"kind": "interval", "minutes": 5})
    assert made["trigger"] == {"kind": "interval", "seconds": 300}


async def test_what_the_code_declares_is_listed(service: Service) -> None:
    listed = (await call(service, "GET", "?limit=1000")).json()["data"]
    declared = {each["id"]: each for each in listed if each["declared"]}
    assert set(declared) == {"cleanup_sessions", "daily_report", "prune_jobs"}
    assert declared["daily_report"]["trigger"]["expression"] == "0 6 * * *"


async def test_an_id_that_is_taken_is_409(service: Service) -> None:
    made = await create(service, id=f"taken-{uuid4()}")
    again = await call(service, "POST", "", **ECHO | {"id": made["id"], "args": {"text": "other"}})
    assert again.status_code == 409
    assert await get(service, made["id"]) == made


async def test_unknown_ids_are_404(service: Service) -> None:
    for method, path, body in [
        ("GET", "/nobody", {}),
        ("PATCH", "/nobody", {"revision": 1}),
        ("DELETE", "/nobody", {}),
        ("POST", "/nobody/run", {}),
    ]:
        assert (await call(service, method, path, **body)).status_code == 404
    assert (await call(service, "GET", "/%00")).status_code == 422


async def test_a_change_needs_the_revision_that_was_read(service: Service) -> None:
    made = await create(service)
    url = f"/{made['id']}"
    first = await call(service, "PATCH", url, revision=1, args={"text": "first"})
    assert first.json()["data"]["revision"] == 2
    second = await call(service, "PATCH", url, revision=1, args={"text": "second"})
    assert second.status_code == 409
    assert (await get(service, made["id"]))["args"] == {"text": "first"}
    assert (await call(service, "PATCH", url, args={"text": "third"})).status_code == 422


async def test_only_a_new_trigger_moves_the_next_tick(
    service: Service, database: Connection
) -> None:
    made = await create(service, paused=True)
    mine = schedules.c.id == made["id"]
    database.execute(update(schedules).where(mine).values(next_tick=LONG_AGO))
    url, tick = f"/{made['id']}", select(schedules.c.next_tick).where(mine)
    grace = await call(service, "PATCH", url, revision=1, misfire_grace=60, catch_up="each")
    assert (grace.json()["data"]["misfire_grace"], database.scalar(tick)) == (60, LONG_AGO)
    daily = {"kind": "interval", "days": 1}
    moved = await call(service, "PATCH", url, revision=2, trigger=daily)
    assert moved.json()["data"]["trigger"] == {"kind": "interval", "seconds": 86_400}
    assert moved.json()["data"]["misfire_grace"] == 60
    assert database.execute(tick).scalar_one() > datetime.now(UTC)


async def test_what_was_due_in_a_pause_is_not_made_up_for(
    service: Service, database: Connection
) -> None:
    made = await create(service)
    url, mine = f"/{made['id']}", schedules.c.id == made["id"]
    paused = (await call(service, "PATCH", url, revision=1, paused=True)).json()["data"]
    assert (paused["paused"], paused["next_tick"]) == (True, None)
    database.execute(update(schedules).where(mine).values(next_tick=LONG_AGO))
    resumed = (await call(service, "PATCH", url, revision=2, paused=False)).json()["data"]
    wait = datetime.fromisoformat(resumed["next_tick"]) - datetime.now(UTC)
    assert timedelta(0) < wait <= timedelta(weeks=1)
    assert resumed["missed_since"] is None


async def test_what_the_code_declares_is_paused_not_deleted(service: Service) -> None:
    before = await get(service, "daily_report")
    refused = await call(service, "DELETE", "/daily_report")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "declared in code: pause it",
    )
    url, revision = "/daily_report", before["revision"]
    for paused in (True, False):
        answer = await call(service, "PATCH", url, revision=revision, paused=paused)
        assert answer.json()["data"]["paused"] is paused
        revision += 1
    assert await get(service, "daily_report") == before | {"revision": revision}


async def test_run_submits_a_job_now_even_in_a_pause(service: Service) -> None:
    made = await create(service, args={"text": "by hand"}, paused=True)
    assert made["paused"]
    answer = await call(service, "POST", f"/{made['id']}/run")
    assert answer.status_code == 202
    job = await service.job_is(answer.json()["data"]["job_id"], "succeeded")
    assert job["result"] == "by hand"
    assert await get(service, made["id"]) == made


async def test_an_unknown_task_is_reported_and_can_be_paused_and_deleted(
    service: Service, database: Connection
) -> None:
    known = Schedule(f"gone-{uuid4()}", Interval(hours=1), probes.echo, ("a",))
    gone = {**definition_of(known), "task": "gone.task"}
    row = {"id": known.id, "definition": gone, "task": "gone.task", "next_tick": LONG_AGO}
    database.execute(insert(schedules).values(row))
    shown = await get(service, known.id)
    assert (shown["problem"], shown["next_tick"]) == ("unknown task", "2026-01-01T00:00:00Z")
    url = f"/{known.id}"
    assert (await call(service, "POST", f"{url}/run")).status_code == 409
    assert (await call(service, "PATCH", url, revision=1, misfire_grace=1)).status_code == 409
    assert (await call(service, "PATCH", url, revision=1, paused=True)).status_code == 200
    assert (await call(service, "DELETE", url)).status_code == 204


async def test_a_schedule_outlives_the_api(tmp_path: Path) -> None:
    async with Service.alone(tmp_path).start("api") as alone:
        made = await create(alone)
        assert alone.stop("api") == [API_ENDED]
        alone.start("api")
        assert await get(alone, made["id"]) == made
