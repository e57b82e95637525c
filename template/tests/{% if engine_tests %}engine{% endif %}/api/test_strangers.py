"""Strange requests, valid or not, never get a 5xx, or an answer that OpenAPI doesn't name."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks, openapi
from schemathesis.core.result import Ok

from tests.service import Service

EXAMPLES = int(os.environ.get("EXAMPLES", "15"))  # requests to each operation, in each mode
BOUNDED = settings(
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """An API with its own database, because strange requests change rows."""
    async with Service.alone(tmp_path_factory.mktemp("alone")).start("api") as service:
        yield service


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("with_key", [False, True])
def test_no_answer_is_a_surprise(alone: Service, with_key: bool, mode: GenerationMode) -> None:
    api = openapi.from_url(f"{alone.client.base_url}/openapi.json")
    headers = alone.operator if with_key else {}
    for operation in api.get_all_operations():
        assert isinstance(operation, Ok)

        @seed(1)
        @BOUNDED
        @given(case=operation.ok().as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(headers=headers, checks=CHECKS)

        with suppress(Unsatisfiable):  # an operation without parameters has no invalid request
            ask()
