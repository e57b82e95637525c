"""Set up a peer, submit jobs to it, or run its worker: python -m peers PEER WHAT [NUMBER]."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module

import uvloop  # pgqueuer's and oban's own commands use it, too
from peers import work

peer = import_module(f"peers.with_{sys.argv[1]}")


async def setup() -> None:
    await work.make_tables()
    await peer.install()


async def submit(what: str, number: int) -> float:
    """The seconds that the submit took, after some jobs that open connections."""
    arguments: list[dict[str, str]] = [{}] * number
    if what == "orders":
        arguments = [{"order_id": each} for each in await work.add_orders(number)]
    async with peer.client() as submit_many:
        await submit_many(what, arguments[:10])
        began = time.monotonic()
        await submit_many(what, arguments[10:])
        return time.monotonic() - began


async def main() -> None:
    if sys.argv[2] == "setup":
        await setup()
    elif sys.argv[2] == "worker":
        await peer.work_on()
    else:
        print(json.dumps(await submit(sys.argv[2], int(sys.argv[3]))))
    await work.engine.dispose()


if __name__ == "__main__":
    uvloop.run(main())
