"""What a task is: the decorator `task`, its options, and what a task may raise."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_type_hints, overload

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs.arguments import MAX_ARGUMENT_BYTES, NotJson, arguments_adapter, first_wrong

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

Arguments = dict[str, JsonValue]  # by name, as a row has them

TASKS_PACKAGE = "app.tasks."
# Of tries, and of jobs at once. The column that keeps the tries also counts those handed back.
MOST = 10**9


class RetryLater(Exception):  # noqa: N818 - raised to say what happens next, like StopIteration
    """A task raises it to run again after that time, or after its `backoff`. The try counts."""

    needs_no_traceback = True

    def __init__(self, reason: str = "", *, after: timedelta | None = None) -> None:
        if not isinstance(after, timedelta | None):
            raise TypeError(f"RetryLater takes a timedelta, not {after!r}")
        super().__init__(reason)
        self.after = after


class NonRetryable(Exception):  # noqa: N818
    """A task raises it when no further try can succeed. The job is dead at once."""

    needs_no_traceback = True


class UnknownTaskError(LookupError):
    """No task of this name is in `app/tasks/`."""


class Bound(Generic[R]):
    """For type checkers only: what a task returns if it is called without its session."""


@dataclass(frozen=True, eq=False)
class Task(Generic[P, V, R]):
    """A function that can run as a job. A call of it runs the plain function at once."""

    fn: Callable[..., Any]
    name: str
    _: KW_ONLY
    session: type[AsyncSession] | type[Session] | None
    tries: int
    timeout: timedelta
    backoff: timedelta
    queue: str
    max_running: int | None
    keep_args: bool
    parameters: tuple[str, ...] = field(init=False)
    _adapter: TypeAdapter[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_options()
        if self.session and self.session is not (AsyncSession if self.is_async else Session):
            raise TypeError(f"task {self.name}: async takes AsyncSession, sync takes Session")
        own = [*inspect.signature(self.fn).parameters.values()][1 if self.session else 0 :]
        if any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in own):
            raise TypeError(f"task {self.name}: every parameter must be passable by position")
        object.__setattr__(self, "__call__", self.fn)  # Starlette looks there whether it is async
        hints = get_type_hints(self.fn, include_extras=True)
        object.__setattr__(self, "parameters", tuple(p.name for p in own))
        object.__setattr__(self, "_adapter", arguments_adapter(own, hints))

    def _check_options(self) -> None:
        for name, least in (("timeout", timedelta.resolution), ("backoff", timedelta(0))):
            if not isinstance(value := getattr(self, name), timedelta) or value < least:
                raise TypeError(f"task {self.name}: {name} can't be {value!r}: give a timedelta")
        for name in ("tries", "max_running"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise ValueError(f"task {self.name}: {name} must be at least 1, at most {MOST}")

    @cached_property
    def signature(self) -> str:
        """A digest of its parameters. Releases that differ here may refuse each other's jobs."""
        takes: Any = self.parameters
        with suppress(PydanticInvalidForJsonSchema):  # a type that has no JSON schema
            takes = self._adapter.json_schema()
        return sha256(json.dumps(takes, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    def serialize(self, *args: object) -> Arguments:
        """Check positional arguments and turn them into JSON.

        Raises TypeError for too many, ValueError for wrong or missing ones and over 64 KiB.
        """
        if len(args) > len(self.parameters):
            takes = len(self.parameters)
            raise TypeError(f"task {self.name} takes {takes} argument{'s' * (takes != 1)}")
        try:
            return self.check(dict(zip(self.parameters, args, strict=False)))
        except ValidationError as error:
            wrong = first_wrong(error, get_type_hints(self.fn))
            raise ValueError(f"{self.name}: {wrong}") from None

    def check(self, named: Mapping[str, object]) -> Arguments:
        """Like `serialize`, but by name. Raises ValidationError, or ValueError over 64 KiB."""
        dump = partial(self._adapter.dump_python, mode="json", by_alias=True, round_trip=True)
        arguments: Arguments = dump(self.deserialize(named))
        if len(json.dumps(arguments, allow_nan=False).encode()) > MAX_ARGUMENT_BYTES:
            raise ValueError(f"the arguments of {self.name} are over 64 KiB: pass an id instead")
        return arguments

    def deserialize(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Turn stored arguments into the function's types. Raises ValidationError."""
        return self._adapter.validate_python(arguments)  # type: ignore[no-any-return]


class SessionTask(Task[P, V, R]):
    """A task with a session: what it writes there commits together with the job's outcome."""

    @overload  # type: ignore[override]
    def __call__(self, db: AsyncSession | Session, /, *args: P.args, **kwargs: P.kwargs) -> V: ...
    @overload  # what `Jobs.submit` sees: the arguments without the session
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
        return self.fn(*args, **kwargs)


class Decorator(Protocol):
    @overload
    def __call__(
        self, fn: Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, R]]
    ) -> SessionTask[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Session, P], R]) -> SessionTask[P, R, R]: ...
    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]]
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> Task[P, R, R]: ...


_registry: dict[str, Task[..., Any, Any]] = {}


def task(
    no_function: None = None,
    /,
    *,
    name: str | None = None,
    tries: int = 5,
    timeout: timedelta = timedelta(minutes=5),
    backoff: timedelta = timedelta(seconds=2),
    queue: str = "default",
    max_running: int | None = None,
    keep_args: bool = False,
) -> Decorator:
    """Make a typed function a task, named after its module and itself (`orders.process_order`).

    A failed job runs again after a random time between 0 and `backoff` * 2**(try - 1), at most an
    hour. When its `tries` are used up it is dead. `timeout` bounds each try, but not code that
    holds the GIL. A sync function that runs longer goes on in its thread, but what it writes
    through a session is refused. At most `max_running` jobs of the task run at once, over all
    workers. When a job has succeeded its arguments are deleted, unless `keep_args` is set.

    A first parameter of type `AsyncSession` (async) or `Session` (sync) is given a session, which
    commits together with the job's outcome, exactly once. Any other effect is at least once.

    Raises TypeError for parameters that can't be passed by position or have a type that JSON can't
    carry, and for a `timeout` or `backoff` that is no timedelta. Raises ValueError for a second
    task of the same name, and if `tries` or `max_running` is not within 1 and 1,000,000,000.
    """
    if no_function is not None:
        raise TypeError("write @task(): it has parentheses, also where they are empty")

    def register(fn: Callable[..., Any]) -> Any:
        named = name or f"{fn.__module__.removeprefix(TASKS_PACKAGE)}.{fn.__name__}"
        try:
            session = _session_type(fn)
            kind: type[Task[..., Any, Any]] = SessionTask if session else Task
            made = kind(
                fn,
                named,
                session=session,
                tries=tries,
                timeout=timeout,
                backoff=backoff,
                queue=queue,
                max_running=max_running,
                keep_args=keep_args,
            )
        except (NameError, NotJson, PydanticUserError) as error:  # a wrong annotation
            raise TypeError(f"task {named}: {error}") from None
        if _registry.setdefault(made.name, made) is not made:
            raise ValueError(f"two tasks are named {made.name}: give one a name=")
        return made

    return register


def _session_type(fn: Callable[..., Any]) -> type[AsyncSession] | type[Session] | None:
    hint = get_type_hints(fn).get(next(iter(inspect.signature(fn).parameters), ""))
    return hint if hint in (AsyncSession, Session) else None


def registry() -> dict[str, Task[..., Any, Any]]:
    """All tasks by name; `app.tasks.load()` fills it."""
    return _registry


def find_task(name: str) -> Task[..., Any, Any]:
    """Raises UnknownTaskError."""
    if found := _registry.get(name):
        return found
    raise UnknownTaskError(name)
