"""Under load, add a replica of the API, kill a worker's container and replace every container.

`python tests/rollout.py HOST SERVICE...` where HOST runs the queue `orders`. Compose must have
brought the service up; API_KEY is its operators' key.
"""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from typing import Any

CLIENTS = 3
LIMIT = 90  # seconds
FRESH = 2  # seconds for which a replica that was ready counts as ready; less than DRAIN_SECONDS
NAP = 5  # seconds, the length of the job whose worker is killed
ENOUGH = 20  # orders that are accepted after each step
UNOBSERVED = {"flower", "prometheus", "rabbitmq", "valkey"}  # Prometheus doesn't scrape them


def compose(*command: str) -> str:
    """The output of `docker compose`. Its progress messages go to the log."""
    done = subprocess.run(["docker", "compose", *command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"docker compose {' '.join(command)} ended with {done.returncode}")
    return done.stdout


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON of the answer. Raises OSError if no answer comes, or one other than 2xx."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "X-API-Key": os.environ["API_KEY"]}
    request = urllib.request.Request(url, content, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """Wait until `holds` returns something true; returns that."""
    deadline = time.monotonic() + LIMIT
    while not (found := holds()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {LIMIT} s: {what}")
        time.sleep(0.1)
    return found


class Balancer:
    """Asks each replica ten times a second whether it is ready. Orders go to those that are."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.seen: dict[str, float] = {}
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self.locks = [threading.Lock() for _ in range(CLIENTS)]  # held until an order is answered
        self.ended = threading.Event()

    def have_two_replicas(self) -> None:
        """Start what is missing, leave the other as it is, and wait until both are ready."""
        compose("up", "--detach", "--wait", "--no-deps", "--no-recreate", "--scale", "api=2", "api")
        self.urls = list(map(address, replicas()))
        eventually(lambda: len(self.ready()) == len(self.urls), f"ready: {self.urls}")

    def ready(self) -> list[str]:
        """The replicas that said within the last FRESH seconds that they are ready."""
        since = time.monotonic() - FRESH
        return [url for url in self.urls if self.seen.get(url, since) > since]

    def watch(self, index: int) -> None:
        """Ask one replica until the end. Each has a thread, so a silent one delays no other."""
        while not self.ended.wait(0.1):
            asked = time.monotonic()
            if index < len(self.urls) and is_ready(url := self.urls[index]):
                self.seen[url] = asked

    def order(self, lock: threading.Lock) -> None:
        """Place orders until the end, at one replica after the other."""
        for turn in count():
            if self.ended.wait(0.03):
                return
            with lock:
                if urls := self.ready():
                    self._order(urls[turn % len(urls)])

    def _order(self, url: str) -> None:
        try:
            answer = ask(f"{url}/orders", {"item": "rollout", "quantity": 1})
        except OSError as error:
            last = time.monotonic() - self.seen[url]
            self.failed.append(f"{url}: {error}; last ready {last:.1f} s ago")
        else:
            self.accepted.append(answer["data"]["job_id"])

    @contextmanager
    def silent(self) -> Iterator[None]:
        """No order is placed while the body runs, and none waits for its answer."""
        with ExitStack() as stack:
            for lock in self.locks:
                stack.enter_context(lock)
            yield

    def goes_on(self) -> None:
        """Wait until more orders are accepted."""
        enough = len(self.accepted) + ENOUGH
        eventually(lambda: len(self.accepted) >= enough, f"{enough} orders are accepted")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Clients place orders while the body runs."""
        threads = [threading.Thread(target=self.watch, args=[index]) for index in range(2)]
        threads += [threading.Thread(target=self.order, args=[lock]) for lock in self.locks]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()


def docker(*command: str) -> str:
    """The output of `docker`."""
    return subprocess.check_output(["docker", *command], text=True)


def replicas() -> list[str]:
    """The ids of the API's containers."""
    return compose("ps", "--quiet", "api").split()


def address(container: str) -> str:
    """The address on this machine at which a container listens."""
    port = docker("port", container, "8000").split()[0].rpartition(":")[2]
    return f"http://127.0.0.1:{port}"


def is_ready(url: str) -> bool:
    """Whether the replica says that a balancer may send requests to it."""
    try:
        return bool(ask(f"{url}/health/ready"))
    except OSError:
        return False


def kill_in_mid_job(host: str, url: str) -> None:
    """Kill the worker that runs a long job, and start it again: the job must run again."""
    never = {"kind": "date", "at": "2999-01-01T00:00:00+00:00"}
    nap = {"id": "nap", "task": "naps.nap", "args": {"seconds": NAP}, "trigger": never}
    ask(f"{url}/schedules", nap)
    job_id = ask(f"{url}/schedules/nap/run", {})["data"]["job_id"]

    def job() -> Any:
        return ask(f"{url}/jobs/{job_id}")["data"]

    eventually(lambda: job()["status"] == "running", "the long job runs")
    compose("kill", "--signal", "KILL", host)
    compose("up", "--detach", "--no-deps", "--no-recreate", "--wait", host)
    ended = eventually(lambda: job()["status"] == "succeeded" and job(), "the long job has ended")
    assert ended["attempts"] == 2, ended


def roll_the_api(balancer: Balancer) -> None:
    """Stop and remove one replica after the other, and start a new one for each."""
    for old in replicas():
        docker("stop", old)
        docker("rm", old)
        balancer.have_two_replicas()


def roll(service: str, balancer: Balancer) -> None:
    """Replace the service's container, as a deploy does."""
    compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", service)
    balancer.goes_on()


def number(sql: str) -> int:
    """The number that a query returns."""
    psql = ("psql", "--username=app", "--dbname=app", "--tuples-only", "--command", sql)
    return int(compose("exec", "-T", "postgres", *psql))


def check(balancer: Balancer) -> None:
    """Each accepted order was done once, no request failed, and each container is well."""
    accepted = len(balancer.accepted)
    done = "SELECT count(*) FROM jobs WHERE task = 'orders.process_order' AND status = 'succeeded'"
    eventually(lambda: number(done) >= accepted, f"{accepted} orders are done")
    processed = "SELECT count(*) FROM orders WHERE status = 'processed'"
    found = number(done), number(processed)
    assert found == (accepted, accepted), (found, accepted)
    assert balancer.failed == [], balancer.failed[:5]
    eventually(lambda: ailing() == [], "each container runs and is healthy")
    print(f"{accepted} orders were accepted, and each was done once")


def ailing() -> list[str]:
    """The containers of services that run for good, and that have ended or are unhealthy."""
    shown = map(json.loads, compose("ps", "--all", "--format", "json").splitlines())
    lasting = [each for each in shown if each["Service"] != "migrate"]
    well = ("running", "healthy")
    return [each["Name"] for each in lasting if (each["State"], each["Health"] or well[1]) != well]


def observed(services: set[str]) -> None:
    """Wait until Prometheus has scraped each process of the services, and evaluated each rule."""
    url = f"http://127.0.0.1:{os.environ['PROMETHEUS_PORT']}/api/v1"

    def states() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for target in ask(f"{url}/targets")["data"]["activeTargets"]:
            name = target["discoveredLabels"]["__meta_dns_name"]
            found.setdefault(name, set()).add(target["health"])
        return found

    eventually(lambda: states() == {name: {"up"} for name in services}, f"observed: {services}")

    def health() -> set[str]:
        (group,) = ask(f"{url}/rules")["data"]["groups"]
        return {rule["health"] for rule in group["rules"]}

    eventually(lambda: health() == {"ok"}, "all rules are evaluated")


def main(host: str, services: list[str]) -> None:
    """Raises AssertionError or SystemExit if something is wrong."""
    balancer = Balancer()
    balancer.urls = [address(replicas()[0])]
    with balancer.running():
        balancer.have_two_replicas()
        with balancer.silent() if host == "api" else nullcontext():  # its requests end with it
            kill_in_mid_job(host, balancer.urls[0])
        compose("run", "--build", "--rm", "--no-deps", "migrate")
        for service in services:
            roll(service, balancer)
        roll_the_api(balancer)
        balancer.goes_on()
    check(balancer)
    observed({"api", *services} - UNOBSERVED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
