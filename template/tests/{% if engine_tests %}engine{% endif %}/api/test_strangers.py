"""Strange requests, valid or not, never get a 5xx, or an answer that OpenAPI doesn't name.

While the database is away they get a 503 that OpenAPI names. The log stays readable.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks, openapi
from schemathesis.core.result import Ok

from app.core.requests import HEALTH_CHECKS
from tests.service import Service

EXAMPLES = int(os.environ.get("EXAMPLES", "15"))  # requests to each operation, in each mode
# Without a database an answer may take two seconds, because a library tries again and again.
WITHOUT_DATABASE = min(EXAMPLES, 50)
BOUNDED = settings(
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
AWAY = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
NEED_IT = {"POST /orders", "GET /orders/{order_id}", "GET /jobs", "GET /schedules", "GET /queues"}


@pytest.fixture(scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """An API with its own database, because strange requests change rows."""
    async with Service.alone(tmp_path_factory.mktemp("alone")).start("api") as service:
        yield service


@pytest.fixture
async def without_database(tmp_path: Path) -> AsyncIterator[Service]:
    async with Service(tmp_path, **AWAY).start("api") as service:
        yield service


def ask_all(
    service: Service, mode: GenerationMode, *more: Any, with_key: bool, number: int = EXAMPLES
) -> None:
    api = openapi.from_url(f"{service.client.base_url}/openapi.json")
    headers = service.operator if with_key else {}
    for operation in api.get_all_operations():
        assert isinstance(operation, Ok)

        @seed(1)
        @settings(BOUNDED, max_examples=number)
        @given(case=operation.ok().as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(headers=headers, checks=[*CHECKS, *more])

        with suppress(Unsatisfiable):  # an operation without parameters has no invalid request
            ask()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("with_key", [False, True])
def test_no_answer_is_a_surprise(alone: Service, with_key: bool, mode: GenerationMode) -> None:
    ask_all(alone, mode, checks.not_a_server_error, with_key=with_key)
    assert_log_is_well(alone)


@pytest.mark.postgresql
def test_no_answer_is_a_surprise_while_the_database_is_away(without_database: Service) -> None:
    unavailable = set[str]()

    def note(_: Any, response: Any, case: Any) -> None:
        if response.status_code == 503 and case.operation.path != HEALTH_CHECKS[1]:
            assert int(response.headers["retry-after"][0]) > 0
            unavailable.add(case.operation.label)

    ask_all(without_database, GenerationMode.POSITIVE, note, with_key=True, number=WITHOUT_DATABASE)
    assert unavailable >= NEED_IT
    assert_log_is_well(without_database)


def assert_log_is_well(service: Service) -> None:
    """No request has a traceback, and none gets a control character into the log."""
    log = service.log("api")
    assert "Traceback" not in log
    assert [line for line in log.split("\n") if not line.isprintable()] == []
