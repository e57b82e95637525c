"""Celery's app and task, as the pattern document describes them, with the service's concurrency."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.config import get_settings
from app.core.database import SyncSessionLocal
from celery import Celery
from control.orders import Order

settings = get_settings()
broker, _, database = settings.redis_url.rpartition("/")

celery_app = Celery("tasks", broker=settings.redis_url, backend=f"{broker}/{int(database) + 1}")
celery_app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    result_serializer="json",
    timezone="UTC",
    enable_utc=True,
    task_track_started=True,
    task_time_limit=300,
    worker_prefetch_multiplier=1,
    worker_concurrency=settings.celery_concurrency,
)


@celery_app.task  # type: ignore[untyped-decorator]
def noop() -> None:
    pass


@celery_app.task(bind=True, max_retries=3)  # type: ignore[untyped-decorator]
def process_order(self: Any, order_id: str) -> dict[str, str]:
    try:
        with SyncSessionLocal() as db:
            order = db.get(Order, UUID(order_id))
            if order:
                order.status = "processed"
                db.commit()
        return {"order_id": order_id, "status": "processed"}
    except Exception as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error
