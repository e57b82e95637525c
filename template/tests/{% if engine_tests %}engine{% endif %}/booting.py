"""Starts of the API with settings that may be wrong, and settings that production takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from pydantic import SecretStr

from app.config import Settings

FIELDS = Settings.model_fields


def with_password(url: str, password: str = ":a-strong-password") -> str:
    server = re.sub("^sqlite:///.*", "postgresql://db/app", url)
    return re.sub("//(.+@)?", f"//app{password}@", server, count=1)


URLS = {name.upper(): os.environ[name.upper()] for name in FIELDS if name.endswith("_url")}
STRONG = {n.upper(): "s" * 24 for n in FIELDS if FIELDS[n].annotation == SecretStr | None}
STRONG |= {name: with_password(url) for name, url in URLS.items()}
STRONG["ALLOWED_HOSTS"] = '["api.example.com"]'


def boot(**env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("API_KEY",)}
    return subprocess.run(
        [sys.executable, "-c", "import app.main"],
        env={**inherited, **env},
        capture_output=True,
        text=True,
        check=False,
    )
