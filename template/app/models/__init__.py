"""All models.

A new module here is found by itself, in a subfolder, too, and so is its migration.
"""

import importlib

from app.core import loading
from app.core.database import Base
from app.models.order import Order
from app.models.user_session import UserSession

for _name in loading.modules_below(__name__):
    importlib.import_module(_name)

__all__ = ["Base", "Order", "UserSession"]
