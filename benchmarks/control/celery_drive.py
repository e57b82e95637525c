"""Send tasks as a route does: python -m control.celery_drive WHAT N."""

from __future__ import annotations

import sys

from control.celery_app import noop, process_order
from control.orders import add_orders


def noops(number: int) -> None:
    for _ in range(number):
        noop.delay()


def orders(number: int) -> None:
    for order_id in add_orders(number):
        process_order.delay(str(order_id))


if __name__ == "__main__":
    {"noops": noops, "orders": orders}[sys.argv[1]](int(sys.argv[2]))
