"""A backup that was taken while jobs ran can be restored: jobs that hadn't ended then run."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import func, make_url, select

from app.models import Order
from devtools.postgresql import find_programs
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.service import create_database, eventually


def back_up(source: str, file: Path) -> None:
    url = make_url(source)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as connection:
            connection.execute("VACUUM INTO ?", (str(file),))
        return
    dump = [str(find_programs() / "pg_dump"), "--format=custom", f"--file={file}", source]
    subprocess.run(dump, check=True)


def restore(source: str, file: Path) -> str:
    """Restore the backup; returns the address of the restored database. No process may run."""
    url = make_url(source)
    if url.get_backend_name() == "sqlite":
        restore_file(Path(str(url.database)), file)
        return source
    name = create_database("restored")
    restored = url.set(database=name).render_as_string(hide_password=False)
    subprocess.run([find_programs() / "pg_restore", f"--dbname={restored}", file], check=True)
    return restored


def restore_file(path: Path, backup: Path) -> None:
    """Put the backup in the place of a file whose processes were killed."""
    log = path.with_name(f"{path.name}-wal")
    assert log.stat().st_size > 0, "nothing is left that could spoil the restored file"
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    shutil.copy(backup, path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_backup_taken_under_load_is_a_service_again(
    world: World, own_broker: Broker | None, tmp_path: Path
) -> None:
    held = await world.submit(delivered.wait_sync, "held")
    await world.row_is(held, "running")
    source, file = world.env["DATABASE_URL"], tmp_path / "backup"
    async with asyncio.TaskGroup() as group:
        backup = group.create_task(asyncio.to_thread(back_up, source, file))
        while not backup.done():
            await world.place_order()
    await world.engine.dispose()  # before the others end: SQLite's last connection tidies up
    world.kill_all()
    restored = await asyncio.to_thread(restore, source, file)
    again = World(tmp_path / "again", world.backend, own_broker, DATABASE_URL=restored)
    again.let_end("held")
    await again.as_it_should_be()
    try:
        assert (await again.row_is(held, "succeeded")).attempts == 2
        waiting = select(func.count()).where(Order.status == "pending", Order.item == "tea")

        async def all_processed() -> bool:
            async with again.engine.connect() as connection:
                return (await connection.execute(waiting)).scalar_one() == 0

        await eventually(all_processed)
    finally:
        await again.close()
