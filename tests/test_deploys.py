"""A deploy from release 0.1.0 loses no job and doubles none, whatever is replaced first.

Both releases run on one database and one broker, under load, while old processes are stopped and
one is killed.
"""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.deploys import Deployment, between, switching
from tests.evidence import problems, problems_of_ticks, take_ticks
from tests.releases import add_inside, addresses, released
from tests.renders import RENDERS, render
from tests.running import check_types_of

WORKERS = pytest.mark.renders("arq", "celery", also=("celery-rabbitmq",))
APIS = pytest.mark.renders("background", also=())
# In these switches each back end, and each broker of Celery's, is left once and chosen once.
NEXT = [
    ("background", "arq"),
    ("arq", "celery"),
    ("celery", "celery-rabbitmq"),
    ("celery-rabbitmq", "apscheduler"),
    ("apscheduler", "background"),
]
MANY = 40  # jobs; the load submits them in a second or two


@pytest.mark.slow
@WORKERS
def test_workers_first_on_postgresql(project: Project, tmp_path: Path) -> None:
    with deploying(project, tmp_path, "DATABASE_URL") as deploy:
        workers_first(deploy)


@pytest.mark.slow
@WORKERS
def test_the_api_first_on_postgresql(project: Project, tmp_path: Path) -> None:
    with deploying(project, tmp_path, "DATABASE_URL") as deploy:
        api_first(deploy)


@pytest.mark.slow
@pytest.mark.renders("arq", also=())
def test_workers_first_on_sqlite(project: Project, tmp_path: Path) -> None:
    with deploying(project, tmp_path) as deploy:
        workers_first(deploy)


@pytest.mark.slow
@pytest.mark.renders("arq", also=())
def test_the_api_first_on_sqlite(project: Project, tmp_path: Path) -> None:
    with deploying(project, tmp_path) as deploy:
        api_first(deploy)


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), NEXT)
def test_other_back_ends_are_a_deploy_as_any_other(
    template: Path, tmp_path: Path, one: str, other: str
) -> None:
    """Under load, each waiting or running job and each tick runs once, on either back end."""
    with switching(template, tmp_path, one, other, "DATABASE_URL") as deploy:
        to_other_back_ends(deploy)


@pytest.mark.slow
@APIS
def test_apis_that_run_jobs_on_postgresql(project: Project, tmp_path: Path) -> None:
    with deploying(project, tmp_path, "DATABASE_URL") as deploy:
        apis(deploy)


@pytest.mark.slow
@APIS
def test_apis_that_run_jobs_on_sqlite(project: Project, tmp_path: Path) -> None:
    with deploying(project, tmp_path) as deploy:
        apis(deploy)


def test_what_runs_inside_fits(tmp_path: Path) -> None:
    render(RENDERS["arq"].answers, tmp_path)
    add_inside(tmp_path)
    check_types_of(tmp_path, "-p", "inside", "-p", "app.tasks")


def workers_first(deploy: Deployment) -> None:
    first, second = begin(deploy, "old-api")
    killed = deploy.hold()
    deploy.migrate("new")
    deploy.start(new := deploy.host("new"))
    deploy.will_begin(MANY, new)
    deploy.kill(killed)
    deploy.let_end()
    left = second if killed == first else first
    deploy.will_begin(MANY, left)
    deploy.stop_or_kill(left)
    deploy.will_begin(MANY, new, by="old-api")
    deploy.start("new-api")
    deploy.will_begin(MANY, new, by="new-api")
    deploy.stop("old-api")
    deploy.will_begin(MANY, new, by="new-api")
    end(deploy, killed)


def api_first(deploy: Deployment) -> None:
    first, second = begin(deploy, "old-api")
    deploy.migrate("new")
    deploy.start("new-api")
    deploy.will_begin(MANY, first, second, by="new-api")
    deploy.stop("old-api")
    deploy.will_begin(MANY, first, second, by="new-api")
    killed = deploy.hold()
    deploy.start(new := deploy.host("new"))
    deploy.will_begin(MANY, new)
    deploy.kill(killed)
    deploy.let_end()
    deploy.stop_or_kill(second if killed == first else first)
    deploy.will_begin(MANY, new, by="new-api")
    end(deploy, killed)


def apis(deploy: Deployment) -> None:
    """If the API itself runs the jobs, its replacement is the only step."""
    first, second = begin(deploy)
    killed = deploy.hold()
    deploy.migrate("new")
    deploy.start("new-api")
    deploy.will_begin(MANY, "new-api")
    deploy.kill(killed)
    deploy.let_end()
    left = second if killed == first else first
    deploy.will_begin(MANY, left)
    deploy.stop(left)
    deploy.will_begin(MANY, "new-api")
    end(deploy, killed)


def to_other_back_ends(deploy: Deployment) -> None:
    """Replace the API first, and then the process that runs the jobs, if it is another one."""
    new, seen = deploy.host("new"), deploy.seen
    beside = [name for name in deploy.all_of("old") if name != deploy.host("old")]
    first, second = begin(deploy, *beside)
    deploy.submit("ticking")
    deploy.until(lambda: seen.hosts_of("each second"), "a schedule ticks")
    killed = deploy.hold()
    deploy.migrate("new")
    deploy.start("new-api")
    hosts = {first, second, new} & deploy.processes.keys()
    deploy.will_begin(MANY, *hosts, by="new-api")
    deploy.stop(*beside)
    deploy.will_begin(MANY, *hosts, by="new-api")
    deploy.start(*(name for name in deploy.all_of("new") if name not in deploy.processes))
    deploy.will_begin(MANY, new)
    deploy.kill(killed)
    deploy.let_end()
    left = second if killed == first else first
    deploy.will_begin(MANY, left, new)  # together: a quicker one may begin nearly all jobs
    deploy.stop(left)
    deploy.will_begin(MANY, new, by="new-api")
    deploy.until(lambda: seen.hosts_of("each second").count(new) > 2, "it ticks on")
    deploy.submit("no more")
    end(deploy, killed)


def begin(deploy: Deployment, *apis: str) -> tuple[str, str]:
    """Start the old release and the load; returns the two processes that run its jobs."""
    deploy.migrate("old")
    hosts = deploy.host("old"), deploy.host("old") + "-2"
    deploy.start(*apis, *hosts)
    deploy.begin_load()
    for each in hosts:
        deploy.will_begin(MANY, each)
    return hosts


def end(deploy: Deployment, killed: str) -> None:
    """End the load. All jobs must have run, nothing may be wrong, and each process must stop."""
    deploy.end_load()
    result = deploy.result()
    ticks = take_ticks(result)
    print(deploy.seen.summary())
    found = [*problems(deploy.seen, result, killed), *problems_of_ticks(ticks)]
    if found:
        first = [problem[:200] for problem in found[:20]]
        text = "\n".join([f"{len(found)} problems", *first, deploy.state()])
        pytest.fail(text, pytrace=False)
    tries = deploy.seen.hosts_of("hold 0")
    assert tries[0] == killed and len(tries) == 2, "the killed host's job runs again, once"
    deploy.stop(*deploy.processes)


def deploying(project: Project, folder: Path, *servers: str) -> AbstractContextManager[Deployment]:
    """Release 0.1.0 and the working tree, on servers that the old release starts."""
    started = dict.fromkeys((*servers, *addresses(project.render)), "old")
    return between(folder, released(project.name), project.folder, started)
