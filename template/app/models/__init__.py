"""All models; import a new one here, so that its migration is found."""

from app.core.database import Base
from app.models.order import Order
from app.models.user_session import UserSession

__all__ = ["Base", "Order", "UserSession"]
