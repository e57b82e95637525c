"""All models. A new module here is found by itself, and so is its migration."""

import importlib
import pkgutil

from app.core.database import Base
from app.models.order import Order
from app.models.user_session import UserSession

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Base", "Order", "UserSession"]
