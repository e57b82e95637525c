"""A collector gets one trace from a request or a tick to the calls of each try."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from app.core.tracing import tell_error
from devtools.commands import COMMANDS, HOSTS
from tests.engine.api.schedule_calls import create
from tests.engine.receiver import Receiver
from tests.service import Service, all_on, eventually

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SETTINGS = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "LOG_JSON": "true",
}
# The first try fails. The second makes a span of its own, in a thread if the task is sync.
PROBE = """
from datetime import timedelta

from opentelemetry import trace

from app.jobs import current_job, task


@task(name="traced.probe", backoff=timedelta(seconds=0.1))
def probe(told: str) -> None:
    with trace.get_tracer("probe").start_as_current_span("charge"):
        if current_job().attempt == 1:
            raise ConnectionError("the first try fails")
"""
ORDERS = """
    from opentelemetry import trace

    from app.jobs import current_job

    with trace.get_tracer("probe").start_as_current_span("charge"):
        if current_job().attempt == 1:
            raise ConnectionError("the first try fails")
"""


class Traced(Service):
    launcher: ClassVar[list[str]] = ["opentelemetry-instrument"]


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=HOSTS)
async def traced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, collector: Receiver
) -> AsyncIterator[Service]:
    collector.bodies.clear()
    endpoint = f"http://{collector.address}"
    carried = {"QUEUES": all_on(request.param), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    folder = tmp_path_factory.mktemp("traced")
    async with Traced.alone(folder, **SETTINGS, **carried) as service:
        tasks = service.folder / "app" / "tasks"
        (tasks / "traced.py").write_text(PROBE)
        orders = (tasks / "orders.py").read_text()
        body = "    order = await db.get("
        assert body in orders
        quick = orders.replace("timedelta(minutes=1)", "timedelta(minutes=1), backoff=timedelta(0)")
        (tasks / "orders.py").write_text(quick.replace(body, ORDERS + body))
        yield service.start_all()


def spans(collector: Receiver) -> list[Span]:
    found: list[Span] = []
    for path, body in collector.bodies:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def attributes(span: Span) -> dict[str, object]:
    kinds = {each.key: each.value.WhichOneof("value") for each in span.attributes}
    return {each.key: getattr(each.value, kinds[each.key] or "") for each in span.attributes}


async def trace_of(collector: Receiver, task: str, trace: bytes | None = None) -> list[Span]:
    """All spans of a trace with two tries of this task."""

    async def there() -> list[Span]:
        run = f"run {task}"
        known = [s for s in spans(collector) if trace in (None, s.trace_id)]
        first = next((s.trace_id for s in known if s.name == run), None)
        whole = [s for s in known if s.trace_id == first]
        return whole if sum(s.name == run for s in whole) == 2 else []

    return await eventually(there)


def check(found: list[Span], task: str, queue: str, secret: bytes) -> Span:
    """Check the spans of a job; returns the span of its submit."""
    (submit,) = [span for span in found if span.name == f"submit {task}"]
    runs = [span for span in found if span.name == f"run {task}"]
    runs.sort(key=lambda span: span.start_time_unix_nano)
    assert [span.parent_span_id for span in runs] == [submit.span_id] * 2
    charges = [span.parent_span_id for span in found if span.name == "charge"]
    assert sorted(charges) == sorted(span.span_id for span in runs)
    assert (submit.kind, runs[0].kind) == (Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER)
    told = [attributes(span) for span in runs]
    assert [(each["job.attempt"], each["job.outcome"]) for each in told] == [
        (1, "failed"),
        (2, "succeeded"),
    ]
    assert {each["messaging.message.id"] for each in told} == {
        attributes(submit)["messaging.message.id"]
    }
    assert {each["messaging.destination.name"] for each in told} == {queue}
    assert [span.status.message for span in runs] == ["ConnectionError", ""]
    check_waits(found, task, runs, submit)
    assert not any(secret in span.SerializeToString() for span in found)
    return submit


def check_waits(found: list[Span], task: str, runs: list[Span], submit: Span) -> None:
    """Before each try there is a span of its wait, whose length the try's span states."""
    waits = [span for span in found if span.name == f"wait {task}"]
    waits.sort(key=lambda span: span.end_time_unix_nano)
    assert [span.parent_span_id for span in waits] == [submit.span_id] * 2
    for wait, run in zip(waits, runs, strict=True):
        assert wait.end_time_unix_nano <= run.start_time_unix_nano
        waited = (wait.end_time_unix_nano - wait.start_time_unix_nano) / 1e6
        assert waited == pytest.approx(attributes(run)["job.waited_ms"], abs=1)


def lines(service: Service) -> list[dict[str, Any]]:
    """What its processes have logged so far."""
    told = "\n".join(service.log(name) for name in COMMANDS).splitlines()
    return [json.loads(line) for line in told if line.startswith("{")]


async def check_lines(service: Service, found: list[Span], task: str) -> None:
    """The log's line about the end of each try has the ids of the try's span."""
    runs = {(s.trace_id.hex(), s.span_id.hex()) for s in found if s.name == f"run {task}"}

    async def named() -> set[tuple[str, str]]:
        known = ("job.failed", "job.succeeded")
        ends = [line for line in lines(service) if line["event"] in known]
        spans = {(line["trace_id"], line["span_id"]) for line in ends if line["task"] == task}
        return spans & runs if spans >= runs else set()

    assert await eventually(named) == runs


async def test_one_trace_leads_from_a_request_to_each_try(
    traced: Service, collector: Receiver
) -> None:
    answer = await traced.client.post(
        "/orders",
        json={"item": "a secret item", "quantity": 1},
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
    )
    await traced.job_is(answer.json()["data"]["job_id"], "succeeded")
    task = "orders.process_order"
    found = await trace_of(collector, task, bytes.fromhex(TRACE))
    submit = check(found, task, "orders", b"a secret item")
    await check_lines(traced, found, task)

    async def request_span() -> list[Span]:
        return [span for span in spans(collector) if span.span_id == submit.parent_span_id]

    (asked,) = await eventually(request_span)
    assert (asked.name, asked.parent_span_id) == ("POST /orders", bytes.fromhex(CALLER))


async def test_each_try_of_a_requests_job_has_one_line(traced: Service) -> None:
    """The client sent no X-Request-ID. So the lines have the one that was made."""
    answer = await traced.client.post("/orders", json={"item": "tea", "quantity": 1})
    job_id, request_id = answer.json()["data"]["job_id"], answer.headers["X-Request-ID"]

    async def told() -> list[dict[str, Any]]:
        ours = [line for line in lines(traced) if line.get("job_id") == job_id]
        ends = [line for line in ours if line["event"].startswith("job.")]
        return ends if "job.succeeded" in {line["event"] for line in ends} else []

    ends = await eventually(told)
    tries = [(line["event"], line["outcome"], line["attempt"]) for line in ends]
    assert tries == [("job.failed", "failed", 1), ("job.succeeded", "succeeded", 2)]
    for line in ends:
        assert (line["task"], line["queue"]) == ("orders.process_order", "orders")
        assert line["request_id"] == request_id
        assert (type(line["waited_ms"]), line["took_ms"] >= 0) == (int, True)


async def test_one_trace_leads_from_a_tick_to_each_try(
    traced: Service, collector: Receiver
) -> None:
    every_second = {"kind": "interval", "seconds": 1}
    made = await create(
        traced, task="traced.probe", args={"told": "a secret argument"}, trigger=every_second
    )
    found = await trace_of(collector, "traced.probe")
    submit = check(found, "traced.probe", "default", b"a secret argument")
    await check_lines(traced, found, "traced.probe")
    (tick,) = [span for span in found if span.span_id == submit.parent_span_id]
    assert (tick.name, tick.parent_span_id) == (f"tick {made['id']}", b"")


async def test_a_process_that_stops_sends_its_spans(tmp_path: Path) -> None:
    """Without that, the spans would wait for a minute."""
    with Receiver() as collector:
        settings = SETTINGS | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{collector.address}"
        async with Traced.alone(tmp_path, **settings) as service:
            service.start_all()
            answer = await service.client.post("/orders", json={"item": "tea", "quantity": 1})
            await service.job_is(answer.json()["data"]["job_id"], "succeeded")
        names = {span.name for span in spans(collector)}
    assert {"POST /orders", "submit orders.process_order", "run orders.process_order"} <= names


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_that_cannot_say_what_it_is_is_told_all_the_same() -> None:
    """Else the try would have no outcome."""
    with TracerProvider().get_tracer("probe").start_as_current_span("run") as span:
        tell_error(span, SpeechlessError())
    assert isinstance(span, ReadableSpan)
    assert span.status.description == "SpeechlessError"
