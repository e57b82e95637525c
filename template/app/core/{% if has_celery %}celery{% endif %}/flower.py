"""Starts Flower, Celery's monitor, behind a password (user `operator`).

python -m app.core.celery.flower
"""

from __future__ import annotations

import os
import sys

from app.config import get_settings
from app.core.celery import broker


def main() -> None:
    """Raises SystemExit if FLOWER_PASSWORD is unset, or has a comma."""
    settings = get_settings()
    settings.require("flower_password", broker.ADDRESS)
    password = settings.flower_password
    if password is None:
        sys.exit("FLOWER_PASSWORD is not set: Flower shows every task's arguments")
    if "," in password.get_secret_value():
        sys.exit("FLOWER_PASSWORD must not have a comma: Flower takes it for a second user")
    # In the environment, because everybody on this machine can read a command line.
    os.environ["FLOWER_BASIC_AUTH"] = f"operator:{password.get_secret_value()}"
    here = [f"--address={settings.flower_address}", f"--port={settings.flower_port}"]
    command = [sys.executable, "-m", "celery", "-A", "app.core.celery", "flower", *here]
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    main()
