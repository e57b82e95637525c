"""After SIGTERM short jobs end, the others are handed back, and the exit code is 0."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from app.jobs.table import jobs
from tests.engine import probes
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.service import API_ENDED, START_LIMIT, eventually

HALF_A_REQUEST = b"""POST /orders HTTP/1.1\r
Host: localhost\r
Content-Type: application/json\r
Content-Length: 100\r
Expect: 100-continue\r
\r
{"item":"""


@contextmanager
def half_a_request(port: int) -> Iterator[None]:
    """A route waits for the rest of its body meanwhile."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HALF_A_REQUEST)
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        yield


async def test_a_stop_lets_short_jobs_end_and_hands_the_rest_back_uncounted(world: World) -> None:
    short = await world.submit(delivered.wait, "short")
    rest = {
        "rest": await world.submit(delivered.wait, "rest"),
        "stuck": await world.submit(delivered.work_sync, "stuck", 60),
    }
    for item in ("short", *rest):
        await world.marked(f"{item} runs")
    stopping = world.processes[world.host()]
    stopping.terminate()
    world.let_end("short")
    await asyncio.to_thread(stopping.wait, START_LIMIT)
    assert world.stop(world.host())[0] in (0, API_ENDED)
    row = await world.row(short)
    assert (row.status, row.attempts, await world.effects("short")) == ("succeeded", 1, 1)
    for job_id in rest.values():
        row = await world.row(job_id)
        assert (row.status, row.crashes, row.max_attempts) == ("pending", 0, 6)
    world.let_end("rest")
    world.start_hosts()
    row = await world.row_is(rest["rest"], "succeeded")
    assert (row.attempts, row.max_attempts, await world.effects("rest")) == (2, 6, 1)


async def test_a_sync_job_that_cannot_be_stopped_does_not_hold_a_stop_up(world: World) -> None:
    job_id = await world.submit(delivered.work_sync, "endless", 60)
    await world.marked("endless runs")
    assert world.stop(world.host())[0] in (0, API_ENDED)
    row = await world.row(job_id)
    assert (row.status, row.crashes, row.attempts) == ("pending", 0, 1)
    async with world.engine.begin() as connection:
        await connection.execute(jobs.delete().where(jobs.c.id == job_id))


async def test_threads_of_an_async_job_that_never_end_hold_no_stop_up(world: World) -> None:
    job_id = await world.submit(probes.fill_threads)
    await world.marked("a thread runs")
    assert await asyncio.to_thread(world.stop, world.host()) == [API_ENDED if world.in_api else 0]
    row = await world.row(job_id)
    assert (row.status, row.crashes, row.attempts, row.max_attempts) == ("pending", 0, 1, 4)
    async with world.engine.begin() as connection:
        await connection.execute(jobs.delete().where(jobs.c.id == job_id))


async def test_a_request_that_never_ends_holds_no_stop_up(world: World) -> None:
    """The host of an API takes no job while its server waits for the request."""
    begun = await world.submit(delivered.work, "begun", 60)
    await world.marked("begun runs")
    stops = world.log("api").count("Shutting down")

    async def stopping() -> bool:
        return world.log("api").count("Shutting down") > stops

    with half_a_request(world.port):
        world.processes["api"].send_signal(signal.SIGTERM)
        await eventually(stopping)
        late = await world.submit(delivered.work, "late", 0)
        assert set(world.stop(*{"api", world.host()})) <= {0, API_ENDED}
    row = await world.row(begun)
    assert (row.status, row.crashes, row.max_attempts) == ("pending", 0, 6)
    assert not world.in_api or (await world.row(late)).attempts == 0
    async with world.engine.begin() as connection:
        await connection.execute(jobs.delete().where(jobs.c.id.in_([begun, late])))
