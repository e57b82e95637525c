"""Place an order with the service at the address, and wait until its job is done."""

import json
import sys
import time
import urllib.request
from typing import Any

LIMIT = 60  # seconds


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The `data` of an answer. Raises HTTPError for any other than 2xx."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
        return data


def main(url: str) -> None:
    print(ask(f"{url}/health/ready"))
    order = ask(f"{url}/orders", {"item": "book", "quantity": 1})
    deadline = time.monotonic() + LIMIT
    while (job := ask(f"{url}/jobs/{order['job_id']}"))["status"] != "succeeded":
        if time.monotonic() > deadline:
            sys.exit(f"not done after {LIMIT} s: {job}")
        time.sleep(0.1)
    print(job)


if __name__ == "__main__":
    main(sys.argv[1])
