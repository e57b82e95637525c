from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Header, status

from app.api.errors import answers
from app.api.routing import Router
from app.dependencies import DBSession, OrderServiceDep
from app.schemas.orders import OrderAccepted, OrderCreate, OrderOut
from app.schemas.response import ApiResponse

router = Router(prefix="/orders", tags=["orders"])

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


@router.post("", status_code=status.HTTP_201_CREATED, responses=answers(413, 503))
async def create_order(
    order: OrderCreate,
    service: OrderServiceDep,
    session: DBSession,
    idempotency_key: IdempotencyKey = None,
) -> ApiResponse[OrderAccepted]:
    """Store an order together with its job, which gets the order's id.

    A second request with the same Idempotency-Key and body gets the order of the first one.
    """
    created = await service.create(order, idempotency_key)
    await session.commit()
    accepted = {"order": OrderOut.model_validate(created), "job_id": created.job_id}
    return ApiResponse(data=OrderAccepted.model_validate(accepted))


@router.get("/{order_id}", responses=answers(404, 503))
async def get_order(order_id: UUID, service: OrderServiceDep) -> ApiResponse[OrderOut]:
    return ApiResponse(data=OrderOut.model_validate(await service.get(order_id)))
