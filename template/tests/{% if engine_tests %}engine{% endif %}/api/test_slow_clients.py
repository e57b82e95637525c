"""A client that doesn't read its answers holds up nobody else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.database import async_url
from app.jobs.table import jobs
from tests.engine import probes
from tests.service import Service

LARGE = "x" * 20_000_000  # more than the buffers of a connection take


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Service]:
    """An API with one connection for requests."""
    async with Service.alone(tmp_path, DATABASE_CONNECTIONS="5").start("api") as service:
        yield service


async def large_job(service: Service) -> UUID:
    job_id = await service.submit(probes.echo, "large", delay=timedelta(days=1))
    engine = create_async_engine(async_url(service.env["DATABASE_URL"]))
    async with engine.begin() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == job_id).values(result=LARGE))
    await engine.dispose()
    return job_id


async def test_answers_that_nobody_reads_hold_no_connection(alone: Service) -> None:
    """The server answers the second request only when the first answer has left it."""
    path = f"/jobs/{await large_job(alone)}"
    with socket.create_connection(("127.0.0.1", alone.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 2)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(20):
            answer = await alone.client.get("/queues", headers=alone.operator)
            assert answer.status_code == 200
