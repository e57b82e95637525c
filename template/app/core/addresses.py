"""Checks addresses that may have a password: whether they can be used, and are protected."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

MIN_PASSWORD_LENGTH = 12
DEFAULT_PASSWORDS = {"admin", "change-me", "changeme", "guest", "password", "postgres", "secret"}


class Address(AfterValidator):
    """Marks a setting that holds the address of a server."""


def addresses(settings: BaseModel) -> dict[str, str]:
    """The addresses of servers among the settings, by variable."""
    return {
        name.upper(): getattr(settings, name)
        for name, field in type(settings).model_fields.items()
        if any(isinstance(each, Address) for each in field.metadata)
    }


def database_address() -> Address:
    """Accepts the address of SQLite in a file, or of PostgreSQL."""

    def check(url: str) -> str:
        parsed = _parsed(url)
        kind = parsed.get_backend_name() if parsed else None
        named = parsed and parsed.database not in (None, "", ":memory:")
        if kind not in ("postgres", "postgresql") and not (kind == "sqlite" and named):
            raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
        return url

    return Address(check)


def broker_address(*schemes: str) -> Address:
    return Address(_begins_with(schemes))


def _begins_with(schemes: tuple[str, ...]) -> Callable[[str], str]:
    def check(url: str) -> str:
        try:
            usable = urlsplit(url).scheme in schemes and "://" in url and urlsplit(url).port != 0
        except ValueError:  # the port is no number
            usable = False
        if not usable or _parsed(url) is None:
            form = f"{schemes[0]}://USER:PASSWORD@HOST:PORT/NAME"
            raise ValueError(f"must be {form}, where %2F stands for a slash, and so on")
        return url

    return check


def sentry_address() -> AfterValidator:
    def check(dsn: str) -> str:
        parts = urlsplit(dsn)
        is_web = parts.scheme in ("http", "https") and parts.hostname and parts.username
        if not is_web or not parts.path.rpartition("/")[2].isdigit():
            raise ValueError("must be a DSN as Sentry shows it: https://KEY@HOST/NUMBER")
        return dsn

    return AfterValidator(check)


def _parsed(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        return None


def weakness(url: str) -> str | None:
    """What is wrong with the address's password. Anybody who reaches the server may try some."""
    parsed = make_url(url)
    password = str(parsed.password or parsed.query.get("password", ""))
    if parsed.get_backend_name() == "sqlite":
        return None
    if not password:
        return "no password"
    if password.lower() in DEFAULT_PASSWORDS | {str(parsed.username).lower()}:
        return "a default password"
    return "a password under 12 characters" if len(password) < MIN_PASSWORD_LENGTH else None
