"""PgBouncer, which may give a connection to another client after each transaction."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from devtools import postgresql
from devtools.processes import free_port, spawn, stop, wait_until
from tests.engine.delivery.tools import program
from tests.service import START_LIMIT

CONNECTIONS = 6  # to the server, for all clients together
SETTINGS = """
[databases]
* = host={url.host} port={url.port} user={url.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
max_prepared_statements = {prepared}
"""


@contextmanager
def pooling(url: str, log: Path, prepared: int) -> Iterator[str]:
    """The same database by a pooler, which keeps at most so many prepared statements."""
    own_port, direct = free_port(), make_url(url)
    by_pooler = direct.set(host="127.0.0.1", port=own_port)
    shown = by_pooler.render_as_string(hide_password=False)
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        settings = Path(folder) / "pgbouncer.ini"
        settings.write_text(
            SETTINGS.format(
                url=direct, own_port=own_port, connections=CONNECTIONS, prepared=prepared
            )
        )
        process = spawn([program("pgbouncer"), str(settings)], log=log, user=_user(folder))
        try:
            wait_until(lambda: postgresql.answers(shown), process, START_LIMIT)
            yield shown
        finally:
            stop(process)


def _user(folder: str) -> str | None:
    """PgBouncer refuses to run as root."""
    if os.getuid() != 0:
        return None
    shutil.chown(folder, "nobody")
    return "nobody"
