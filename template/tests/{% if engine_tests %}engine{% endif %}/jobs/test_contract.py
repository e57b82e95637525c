from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app import tasks
from app.jobs import Jobs, RetryLater, task
from app.jobs.contract import find_task, registry
from app.models import Order
from app.tasks.notifications import send_email
from app.tasks.orders import process_order
from tests.engine import probes


class Login(BaseModel):
    token: SecretStr


def test_a_task_stays_a_plain_function() -> None:
    assert send_email("a@example.com", "hello") == {"sent_to": "a@example.com"}


def test_tasks_are_found_and_named_after_their_module() -> None:
    tasks.load()
    assert find_task("orders.process_order") is process_order
    assert find_task("notifications.send_email") is send_email


def test_arguments_travel_as_json_and_arrive_typed() -> None:
    order_id = uuid4()
    dumped = process_order.serialize(order_id)
    assert dumped == {"order_id": str(order_id)}
    assert process_order.deserialize(dumped) == {"order_id": order_id}
    assert isinstance(process_order.deserialize(dumped)["order_id"], UUID)


def test_what_is_wrong_with_arguments_shows_none_of_them() -> None:
    """The text of the error gets into the log, and into `jobs.error`."""
    with pytest.raises(ValidationError, match="times") as refused:
        probes.echo_sync.deserialize({"text": "a", "times": "SECRET", "more": "SECRET"})
    assert "SECRET" not in str(refused.value)


def test_a_default_may_be_left_out() -> None:
    assert probes.echo_sync.serialize("a") == {"text": "a"}
    assert probes.echo_sync.serialize("a", 2) == {"text": "a", "times": 2}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("a", "b", "c"), TypeError, "takes 2 arguments"),
        ((), ValueError, r"^probes\.echo_sync: text is missing$"),
        ((1,), ValueError, r"^probes\.echo_sync: text should be str, got int$"),
        (("a", "SECRET"), ValueError, r"^probes\.echo_sync: times: .+ valid integer.+, got str$"),
        (("x" * 65_536,), ValueError, "64 KiB"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[Any, ...], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        probes.echo_sync.serialize(*arguments)


@task(name="contract.constrained")
def constrained(
    count: PositiveInt,
    counts: list[PositiveInt],
    code: Annotated[str, Field(max_length=3), AfterValidator(str.upper)],
) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((-5, [], ""), r"count: .+ greater than 0, got int"),
        ((5, [1, -5], ""), r"counts\.1: .+ greater than 0, got int"),
        ((5, [], "SECRET"), r"code: .+ at most 3 characters, got str"),
        (("5 or so", [], ""), r"count: .+ valid integer.+, got str"),
        ((None, [], ""), r"count should be int, got NoneType"),
    ],
)
def test_constraints_of_arguments_are_checked(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError, match=rf"^contract\.constrained: {said}$"):
        constrained.serialize(*arguments)


def test_validators_of_arguments_are_called() -> None:
    assert constrained.serialize(5, [1], "abc") == {"count": 5, "counts": [1], "code": "ABC"}


class Address(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    street_name: str


@task(name="contract.carried")
def carried(address: Address, numbers: Json[list[int]]) -> None: ...


def test_what_is_submitted_can_be_loaded() -> None:
    address = Address.model_validate({"streetName": "High Street"})
    stored = carried.serialize(address, "[1, 2]")
    assert carried.deserialize(stored) == {"address": address, "numbers": [1, 2]}


def test_an_object_in_place_of_its_id_is_named() -> None:
    expected = "orders.process_order: order_id should be UUID, got Order: pass its id"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        process_order.serialize(Order(id=uuid4()))


def test_a_parameter_that_is_no_json_is_named() -> None:
    async def send_order(db: AsyncSession, text: str, order: Order) -> None: ...

    wrong = "order can't be of type Order: arguments are JSON; take its id and load it in the task"
    with pytest.raises(TypeError, match=f"^task objects.send: {re.escape(wrong)}$"):
        task(name="objects.send")(send_order)


def test_a_parameter_that_hides_its_value_is_refused() -> None:
    async def log_in(logins: list[Login]) -> None: ...

    wrong = "asterisks replace a secret in JSON; take an id and load it in the task"
    with pytest.raises(TypeError, match=f"^task secrets.log_in: {re.escape(wrong)}$"):
        task(name="secrets.log_in")(log_in)


def test_a_decorator_without_parentheses_is_refused() -> None:
    decorate: Any = task
    with pytest.raises(TypeError, match=r"^write @task\(\)"):
        decorate(lambda: None)


def test_what_cannot_be_passed_by_position_is_refused() -> None:
    def keyword_only(*, text: str) -> None: ...
    def many(*texts: str) -> None: ...

    for fn in (keyword_only, many):
        with pytest.raises(TypeError, match="passable by position"):
            task()(fn)


def test_the_session_must_fit_the_function() -> None:
    async def asynchronous(db: Session) -> None: ...
    def synchronous(db: AsyncSession) -> None: ...

    for fn in (asynchronous, synchronous):
        with pytest.raises(TypeError, match="async takes AsyncSession, sync takes Session"):
            task()(fn)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 30}, "timeout can't be 30: give a timedelta"),
        ({"timeout": timedelta(0)}, "timeout can't be"),
        ({"backoff": 5}, "backoff can't be 5: give a timedelta"),
        ({"tries": 0}, "tries must be at least 1"),
        ({"max_running": 0}, "max_running must be at least 1"),
        ({"tries": 2**31 - 1}, "tries must be at least 1, at most 1000000000"),
        ({"max_running": 2**31}, "max_running must be at least 1, at most 1000000000"),
    ],
)
def test_options_that_no_job_could_run_with_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"contract.wrong: {said}"):
        task(name="contract.wrong", **options)(lambda: None)


def test_a_time_to_wait_has_a_unit() -> None:
    with pytest.raises(TypeError, match="RetryLater takes a timedelta, not 30"):
        RetryLater(after=30)  # type: ignore[arg-type]


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two tasks are named probes\.echo"):
        task(name="probes.echo")(lambda: None)
    assert registry()["probes.echo"] is probes.echo


async def test_options_are_checked_when_submitted(session: AsyncSession) -> None:
    jobs = Jobs(session)
    with pytest.raises(TypeError, match="is not a task"):
        await jobs.submit(print, "a")
    with pytest.raises(ValueError, match="no back end carries the queue 'nowhere'"):
        await jobs.submit(probes.echo, "a", queue="nowhere")
    with pytest.raises(ValueError, match="delay or at"):
        await jobs.submit(probes.echo, "a", delay=timedelta(1), at=datetime.now(UTC))
    naive = datetime.now(UTC).replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        await jobs.submit(probes.echo, "a", at=naive)
