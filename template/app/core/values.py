"""Checks the values of settings: whether they can be used, and whether a password protects them."""

from __future__ import annotations

import logging
import re
from typing import Annotated
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import AfterValidator, BaseModel, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

MIN_PASSWORD_LENGTH = 12
DEFAULT_PASSWORDS = {"admin", "change-me", "changeme", "guest", "password", "postgres", "secret"}
HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class Address(AfterValidator):
    """Marks a setting that holds the address of a server."""


def addresses(settings: BaseModel) -> dict[str, str]:
    """The addresses of servers among the settings, by variable."""
    return {
        name.upper(): getattr(settings, name)
        for name, field in type(settings).model_fields.items()
        if any(isinstance(each, Address) for each in field.metadata)
    }


def _database_address(url: str) -> str:
    parsed = _parsed(url)
    kind = parsed.get_backend_name() if parsed else None
    named = parsed and parsed.database not in (None, "", ":memory:")
    if kind not in ("postgres", "postgresql") and not (kind == "sqlite" and named):
        raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    return url


def broker_address(*schemes: str) -> Address:
    def check(url: str) -> str:
        try:
            usable = urlsplit(url).scheme in schemes and "://" in url and urlsplit(url).port != 0
        except ValueError:  # the port is no number
            usable = False
        if not usable or _parsed(url) is None:
            form = f"{schemes[0]}://USER:PASSWORD@HOST:PORT/NAME"
            raise ValueError(f"must be {form}, where %2F stands for a slash, and so on")
        return url

    return Address(check)


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


def _header_value(secret: SecretStr | None) -> SecretStr | None:
    if secret and not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", secret.get_secret_value()):
        raise ValueError("must be printable ASCII, without a space at its ends")
    return secret


def log_level(level: str) -> str:
    if level.upper() not in logging.getLevelNamesMapping():
        raise ValueError("must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return level


def _rate(rate: str) -> str:
    try:
        parse_many("1/second" if rate == "off" else rate)
    except ValueError:
        raise ValueError("must be off, or such as 10/minute or 5/second;100/hour") from None
    return rate


def _host_names(hosts: list[str]) -> list[str]:
    if not all(map(HOST.fullmatch, hosts)):
        raise ValueError("must be names without scheme or port: api.example.com, *.example.com")
    return hosts


def _sentry_address(dsn: str) -> str:
    parts = urlsplit(dsn)
    is_web = parts.scheme in ("http", "https") and parts.hostname and parts.username
    if not is_web or not parts.path.rpartition("/")[2].isdigit():
        raise ValueError("must be a DSN as Sentry shows it: https://KEY@HOST/NUMBER")
    return dsn


DatabaseAddress = Annotated[str, Address(_database_address)]
HEADER_VALUE = AfterValidator(_header_value)
Rate = Annotated[str, AfterValidator(_rate)]
HostNames = Annotated[list[str], AfterValidator(_host_names)]
SentryAddress = Annotated[str, AfterValidator(_sentry_address)]
