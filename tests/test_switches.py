"""A service with a user's work changes its back ends, and back. No work or job is lost."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations, permutations
from pathlib import Path

import pytest

from extensions.context import NAMES
from tests.deploys import switching
from tests.evidence import problems_of_ticks, take_ticks
from tests.renders import RENDERS
from tests.services import Service, differences, in_parallel, read_all
from tests.work import work

Pair = tuple[tuple[str, ...], tuple[str, ...]]


NEXT = list(zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True))
# The jobs that `inside/submit.py` submits while no process runs.
WORK = [f"work {number}" for number in range(20)]
WAITING = [*WORK, *(f"later {number}" for number in range(20)), "once"]


def pairs() -> Iterator[Pair]:
    """Pairs of single back ends, and pairs of which one has one back end more."""
    for one, other in combinations(NAMES, 2):
        yield (one,), (other,)
    for size in range(1, len(NAMES)):
        for chosen in combinations(NAMES, size):
            for more in sorted({*NAMES} - {*chosen}):
                yield chosen, tuple(name for name in NAMES if name in (*chosen, more))


def is_near(pair: Pair) -> bool:
    """Whether a single back end takes the place of another, or one is added to the one before it in
    the list of names, or to all three others.
    """
    one, other = pair
    added = tuple(name for name in other if name not in one)
    return len(one) == len(other) or one + added in NEXT or len(other) == len(NAMES)


def render_with_work(template: Path, folder: Path, backends: tuple[str, ...]) -> list[str]:
    work(Service(template, folder / name_of(backends)).render({"backends": list(backends)}).folder)
    return []


def name_of(backends: tuple[str, ...]) -> str:
    return "-".join(backends)


def there_and_back(template: Path, fresh: Path, folder: Path, pair: Pair) -> list[str]:
    """The differences from a fresh render with the same work, after each of both switches."""
    one, other = pair
    service = Service(template, folder).render({"backends": list(one)})
    work(service.folder)
    found = []
    for before, after in ((one, other), (other, one)):
        service.committed().update(backends=list(after))
        problems = [f"conflict in {name}" for name in service.unmerged()]
        problems += differences(service.files(), read_all(fresh / name_of(after)))
        found += [f"{name_of(before)} to {name_of(after)}: {problem}" for problem in problems]
    return found


def test_one_back_end_for_another_and_back(template: Path, tmp_path: Path) -> None:
    assert check(template, tmp_path, [(("arq",), ("celery",))]) == []


@pytest.mark.slow
def test_each_back_end_comes_and_goes(template: Path, tmp_path: Path) -> None:
    """There are 12 switches between single back ends, and 16 by one more or one less."""
    near = [pair for pair in pairs() if is_near(pair)]
    assert len(near) == 6 + 8
    assert check(template, tmp_path, near) == []


@pytest.mark.night
def test_each_pair_there_and_back(template: Path, tmp_path: Path) -> None:
    """The others are 40 switches by one more or one less."""
    far = [pair for pair in pairs() if not is_near(pair)]
    assert len(far) == 20
    assert check(template, tmp_path, far) == []


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), NEXT)
def test_what_waits_or_runs_meanwhile_runs_once(
    template: Path, tmp_path: Path, one: str, other: str
) -> None:
    """A job that began on the old back end ends on the new one, and each tick has its job."""
    with switching(template, tmp_path, one, other) as deploy:
        old, new, seen = deploy.host("old"), deploy.host("new"), deploy.seen
        deploy.migrate("old")
        deploy.start_all("old")
        deploy.submit("running")
        deploy.until(lambda: seen.hosts_of("hold 0"), "a job runs")
        deploy.until(lambda: len(seen.hosts_of("each second")) > 1, "a schedule ticks")
        deploy.stop(*deploy.processes)
        deploy.submit("waiting")
        deploy.let_end()
        deploy.migrate("new")
        deploy.start_all("new")
        for item in WAITING:
            deploy.until(partial(seen.hosts_of, item), f"{item} runs")
        deploy.until(lambda: seen.hosts_of("each second").count(new) > 2, "it ticks on")
        deploy.submit("no more")
        result = deploy.result()
        deploy.stop(*deploy.processes)
    rows = result["jobs"].values()
    assert {(row["status"], row["crashes"]) for row in rows} == {("succeeded", 0)}
    assert {item: seen.hosts_of(item) for item in WAITING} == {item: [new] for item in WAITING}
    assert seen.hosts_of("hold 0") == [old, new]
    assert result["orders"] == dict.fromkeys(["hold 0", *WORK], 1)
    ticks = take_ticks(result)
    assert problems_of_ticks(ticks) == []
    assert len(seen.hosts_of("each second")) == len(ticks)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # In four of the twelve each back end is left once, and chosen once.
        pytest.param(*pair, marks=pytest.mark.slow if pair in NEXT else pytest.mark.night)
        for pair in permutations(NAMES, 2)
    ],
)
def test_its_suite_passes_afterwards(template: Path, tmp_path: Path, one: str, other: str) -> None:
    service = Service(template, tmp_path / "it").render({"backends": [one]})
    work(service.folder)
    service.committed().update(backends=[other])
    for command in ("ruff check", "ruff format --check", "mypy", "pytest"):
        service.run(f"uv run {command}")


def check(template: Path, folder: Path, chosen: list[Pair]) -> list[str]:
    fresh = folder / "fresh"
    every = sorted({backends for pair in chosen for backends in pair})
    in_parallel(render_with_work, [(template, fresh, backends) for backends in every])
    cases = [(template, fresh, folder / str(n), pair) for n, pair in enumerate(chosen)]
    return in_parallel(there_and_back, cases)


def test_their_names_are_those_that_are_rendered() -> None:
    """Other tests check the lint and the types of each choice that is switched to."""
    assert {"-".join(chosen) for pair in pairs() for chosen in pair} <= RENDERS.keys()
