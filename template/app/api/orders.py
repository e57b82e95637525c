from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Header, HTTPException, status
from fastapi.exceptions import RequestValidationError

from app.api.errors import answers
from app.api.routing import Router
from app.dependencies import OrderServiceDep
from app.schemas.orders import OrderAccepted, OrderCreate, OrderOut
from app.schemas.response import ApiResponse
from app.services.orders import IdempotencyConflictError

router = Router(prefix="/orders", tags=["orders"])

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


@router.post("", status_code=status.HTTP_201_CREATED, responses=answers(413, 422, 503))
async def create_order(
    order: OrderCreate, service: OrderServiceDep, idempotency_key: IdempotencyKey = None
) -> ApiResponse[OrderAccepted]:
    """The order and its job are stored together; the job gets the order's id, not the order.

    The same Idempotency-Key and body give the order that is there, to whoever knows the key.
    """
    try:
        created = await service.create(order, idempotency_key)
    except IdempotencyConflictError as error:
        wrong = {"loc": ("header", "idempotency-key"), "msg": str(error), "type": "conflict"}
        raise RequestValidationError([wrong]) from None
    accepted = {"order": OrderOut.model_validate(created), "job_id": created.job_id}
    return ApiResponse(data=OrderAccepted.model_validate(accepted))


@router.get("/{order_id}", responses=answers(404, 422, 503))
async def get_order(order_id: UUID, service: OrderServiceDep) -> ApiResponse[OrderOut]:
    order = await service.get(order_id)
    if order is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such order")
    return ApiResponse(data=OrderOut.model_validate(order))
