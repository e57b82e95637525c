"""Runs one try of a job: calls its task within its timeout, and makes the outcome."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.config import get_settings
from app.core import tracing
from app.core.control import control
from app.core.database import JobSession, SyncSessionLocal
from app.core.outages import is_in_the_way, is_outage
from app.jobs.claims import note_refusal
from app.jobs.contract import NonRetryable, RetryLater
from app.jobs.endings import Ending, named
from app.jobs.looks import Taken
from app.jobs.outcomes import ONE, Outcome
from app.jobs.processes import is_taken
from app.jobs.running import Claim, LeaseLostError, claim_of, running_job
from app.jobs.table import Status
from app.jobs.tries import text_of

MAX_BACKOFF = timedelta(hours=1)
MAX_RESULT_BYTES = 256 * 1024
MAX_REFUSED_DELAY = 30  # seconds until a job runs again whose arguments a host refused
OUTAGE = 2  # about so many seconds until a job runs again after the database was away
MOST_OUTAGES = 100  # tries that aren't counted: a task may cause its own outages


async def attempt(claim: Claim) -> Outcome | None:
    """Run one try. Returns the outcome that must still be written. If cancelled, hand it back."""
    with _context(claim), _traced(claim):
        try:
            return await _try(claim)
        except LeaseLostError:  # or the task has ended its own job, which was rolled back
            claim.end(Ending.LOST)
            return failed(claim, NonRetryable("the task ended its own job in its session"))
        except asyncio.CancelledError:
            return _cancelled(claim)
        except Exception as error:
            return _failed(claim, error)
        except SystemExit as error:  # it would end this process, and all its jobs with it
            return _failed(claim, RuntimeError(f"the task called sys.exit({error.code!r})"))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # such as the panic of an extension in Rust
            return _failed(claim, RuntimeError(f"the task raised {error!r}"))
    return None


async def attempt_alone(taken: Taken) -> Outcome | None:
    """Like `attempt`, for a job that was claimed without a host."""
    return await attempt(claim_of(taken))


async def _try(claim: Claim) -> Outcome | None:
    try:
        args = claim.task.deserialize(claim.args)
    except ValidationError as error:
        return await refused(claim, error)
    return await _call_in_time(claim, args)


async def _call_in_time(claim: Claim, args: dict[str, object]) -> Outcome | None:
    limit = claim.task.timeout.total_seconds()
    try:
        async with asyncio.timeout(limit) as bound:
            return await _call(claim, args)
    except TimeoutError:
        if bound.expired():
            raise TimeoutError(f"ran longer than {limit:g} s") from None
        raise


async def _call(claim: Claim, args: dict[str, object]) -> Outcome | None:
    """Call the task. Its session, if any, commits the outcome with what the task wrote."""
    task, outcome = claim.task, None
    if task.session is AsyncSession:
        async with JobSession() as session:
            done = succeeded(claim, await task.fn(session, **args))
            await session.run_sync(_commit, claim, done)
    elif task.session is Session:
        await claim.in_thread(partial(_call_with_session, claim, args))
    else:
        call = partial(task.fn, **args)
        outcome = succeeded(claim, await (call() if task.is_async else claim.in_thread(call)))
    claim.end(Ending.SUCCEEDED)
    return outcome


def _call_with_session(claim: Claim, args: dict[str, object]) -> None:
    with SyncSessionLocal() as session:
        _commit(session, claim, succeeded(claim, claim.task.fn(session, **args)))


def _commit(session: Session, claim: Claim, outcome: Outcome) -> None:
    """Commit what the task wrote together with its outcome. Raises LeaseLostError."""
    claim.fenced = True
    written: Any = session.connection().execute(ONE, outcome.values)
    if written.rowcount == 0:
        raise LeaseLostError
    session.commit()


def _cancelled(claim: Claim) -> Outcome | None:
    running: Any = asyncio.current_task()
    if not running.cancelling():  # the task waited for something that was cancelled
        return _failed(claim, RuntimeError("the task itself raised CancelledError"))
    running.uncancel()
    if claim.lost:
        claim.end(Ending.LOST)
        return None
    claim.end(Ending.HANDED_BACK)  # this process ends, and the job runs elsewhere
    return handed_back(claim)


def _failed(claim: Claim, error: Exception) -> Outcome:
    is_away = is_outage(error) or (claim.fenced and is_in_the_way(error))
    if is_away and claim.max_attempts < claim.task.tries + MOST_OUTAGES:
        claim.end(Ending.HANDED_BACK, "no database: " + repr(error).splitlines()[0])
        return handed_back(claim, OUTAGE * random.uniform(0.5, 1.5))  # noqa: S311
    try:
        outcome = failed(claim, error)
    except Exception as mistake:  # as of a RetryLater that has no time
        error, outcome = mistake, failed(claim, mistake)
    ending = Ending.DEAD if outcome.status is Status.DEAD else Ending.FAILED
    claim.end(ending, outcome.error, error)
    return outcome


@contextmanager
def _traced(claim: Claim) -> Iterator[None]:
    told: dict[str, Any] = {"messaging.message.id": str(claim.id), "job.attempt": claim.attempt}
    job = claim.task.name, claim.queue, claim.origin, claim.waited
    with tracing.running(*job, **told) as span:
        claim.span = span
        yield
        if ended := claim.ended:
            span.set_attribute("job.outcome", ended.ending.value)
            if ended.cause:
                tracing.tell_error(span, ended.cause)


@contextmanager
def _context(claim: Claim) -> Iterator[None]:
    token = running_job.set(claim)
    bound = {"job_id": str(claim.id), "task": claim.task.name, "attempt": claim.attempt}
    before = structlog.contextvars.bind_contextvars(**bound, **named(claim.origin))
    try:
        yield
    finally:
        structlog.contextvars.reset_contextvars(**before)
        running_job.reset(token)


async def refused(claim: Claim, error: ValidationError) -> Outcome:
    """A job of another release waits for a host that takes its arguments. The try isn't counted.

    A job of this release is dead, and so is one that no process takes for UNKNOWN_TASK_GRACE.
    """
    noted = await control(partial(note_refusal, job_id=claim.id, attempt=claim.attempt))
    if noted is None:
        raise LeaseLostError
    text, waited = text_of(error), (noted.now - noted.refused_at).total_seconds()
    if noted.signature == claim.task.signature:
        claim.end(Ending.DEAD, text)
        return Outcome(claim.id, claim.attempt, Status.DEAD, error=text)
    sentence = f"ArgumentsRefused: this release doesn't take them. {text}"
    if waited > get_settings().unknown_task_grace:
        known = partial(is_taken, task=claim.task.name, signature=noted.signature)
        if not await control(known):
            claim.end(Ending.DEAD, sentence)
            return Outcome(claim.id, claim.attempt, Status.DEAD, error=sentence)
    claim.end(Ending.REFUSED, sentence)
    delay = min(MAX_REFUSED_DELAY, max(1, waited))
    return Outcome(claim.id, claim.attempt, Status.PENDING, error=sentence, delay=delay, more=1)


def succeeded(claim: Claim, result: Any) -> Outcome:
    """The outcome of a task that returned. Raises NonRetryable if its result can't be kept."""
    try:
        jsonable = to_jsonable_python(result)
        encoded = _encoder.encode(jsonable)
        size = len(encoded.encode())
        _decoder.decode(encoded)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NonRetryable(f"the result is not JSON: {error}") from error
    if size > MAX_RESULT_BYTES:
        raise NonRetryable(f"the result has {size} bytes, over 256 KiB: return an id instead")
    kept = claim.task.keep_args
    return Outcome(claim.id, claim.attempt, Status.SUCCEEDED, jsonable, keep_args=kept)


def _within_64_bits(digits: str) -> int:
    """SQLite would make a float of a longer integer."""
    if abs(number := int(digits)) >= 2**63:
        raise ValueError("it has an integer over 64 bits")
    return number


# Made once: with options, `json.dumps` and `json.loads` make one at each call.
_encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_decoder = json.JSONDecoder(parse_int=_within_64_bits)


def handed_back(claim: Claim, delay: float | None = None) -> Outcome:
    """Pending again. The try isn't counted: one more is allowed, because attempts only grow."""
    return Outcome(claim.id, claim.attempt, Status.PENDING, delay=delay, more=1)


def failed(claim: Claim, error: Exception) -> Outcome:
    """Pending again after the backoff, or dead."""
    text = text_of(error)
    if claim.attempt >= claim.max_attempts or isinstance(error, NonRetryable):
        return Outcome(claim.id, claim.attempt, Status.DEAD, error=text)
    delay = next_delay(claim, error).total_seconds()
    return Outcome(claim.id, claim.attempt, Status.PENDING, error=text, delay=delay)


def next_delay(claim: Claim, error: Exception) -> timedelta:
    """Exponential backoff with full jitter, unless the task said when."""
    if isinstance(error, RetryLater) and error.after is not None:
        return error.after
    # A try that isn't counted adds one to both numbers. A replay begins anew.
    counted = max(1, claim.task.tries - (claim.max_attempts - claim.attempt))
    grown = claim.task.backoff.total_seconds() * 2.0 ** min(counted - 1, 30)
    return timedelta(seconds=random.uniform(0, min(MAX_BACKOFF.total_seconds(), grown)))  # noqa: S311
