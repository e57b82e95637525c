"""What `copier update` runs in a service: before its own work, and after it.

Copier passes the stage in the environment, and the name of the answers file as the argument.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from updates import changelog
from updates.checkout import problems
from updates.renders import at_head, files, git, gone, moved, owned, read, removed

TEMPLATE = Path(__file__).parents[1]

# A renamed choice stands here by its question and its old value, a renamed setting by its old name.
RENAMED_CHOICES: dict[tuple[str, str], str] = {}
RENAMED_SETTINGS: dict[str, str] = {}

BACK_ENDS = yaml.safe_load((TEMPLATE / "updates" / "backends.yml").read_text("utf-8"))
TITLES: dict[str, str] = BACK_ENDS["titles"]
LEFT: dict[str, str] = BACK_ENDS["left"]


def main(answers_file: str) -> int:
    """Returns 1, and changes nothing, if an update would lose something."""
    if os.environ["STAGE"] == "before":
        return before(Path(answers_file))
    for part in after(answers_file):
        print(part, file=sys.stderr, flush=True)
    return 0


def before(answers_file: Path) -> int:
    text = answers_file.read_text("utf-8")
    if problem := next(problems(str(answers_file), yaml.safe_load(text)), ""):
        print(f"{problem} Nothing was changed.", file=sys.stderr)
        return 1
    answers_file.write_text(renamed(text), "utf-8")
    return 0


def renamed(answers: str) -> str:
    """The text of an answers file with the new names of choices. Its comments are kept."""
    found = yaml.safe_load(answers)
    for (question, old), new in RENAMED_CHOICES.items():
        value = found.get(question)
        if isinstance(value, list):
            found[question] = [new if each == old else each for each in value]
        elif value == old:
            found[question] = new
    if found == yaml.safe_load(answers):
        return answers
    comments = [line for line in answers.splitlines(keepends=True) if line.startswith("#")]
    return "".join(comments) + yaml.safe_dump(found, allow_unicode=True)


def after(answers_file: str) -> Iterator[str]:
    """The last lines that an update prints."""
    if not files("status", "--porcelain", "--", "."):
        yield "Nothing has changed."
        return
    old = yaml.safe_load(git("show", f"HEAD:./{answers_file}"))
    new = yaml.safe_load(Path(answers_file).read_text("utf-8"))
    keep(new.get("own_files") or [])
    others = [title for name, title in TITLES.items() if name not in new["backends"]]
    yield from listed("Behaves differently than before:", changelog.differences(others))
    yield from settings(old, new)
    yield from remains(old, new)
    yield from listed(
        "Both you and the template changed these. Mend what is between <<<<<<< and >>>>>>>, "
        "then git add:",
        sorted({*files("diff", "--relative", "--name-only", "--diff-filter=U")}),
    )
    yield from listed(
        "What you wrote, and the template changed too, is in these. Apply each, then delete it:",
        sorted({*files("ls-files", "--others", "--", "*.rej")}),
    )
    yield from listed(
        "These are gone, though you had edited them. To bring yours back:",
        [f"git checkout HEAD -- {quoted(name)}" for name in gone(old, answers_file)],
    )
    yield from listed(
        "You have moved or removed these, and the template has changed them. To see how:",
        list(moved(old, new, answers_file)),
    )
    yield from listed("What remains:", ["uv lock", "uv run poe migrate", "uv run poe test"])


def keep(own: list[str]) -> None:
    """Restore the user's own files: the first update that excludes a file removes it."""
    if back := owned(removed(), own):
        git("checkout", "--quiet", "HEAD", "--", *back)


def listed(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield "\n".join(["", title, *(f"  {line}" for line in lines)])


def quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w./-]+", name) else f"'{name}'"


def variants(answers: dict[str, Any]) -> dict[str, str]:
    """The name of each chosen back end's variant."""
    about = {
        "celery": f"_{answers.get('celery_broker', 'redis')}",
        "apscheduler": f"_{answers.get('apscheduler_version', '3')}",
    }
    return {name: name + about.get(name, "") for name in answers["backends"]}


def remains(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What the back ends that are no longer chosen leave in their brokers."""
    dropped = set(variants(old).values()) - set(variants(new).values())
    lines = [LEFT[name] for name in sorted(dropped) if name in LEFT]
    yield from listed("The old back end leaves, for you to remove once no old process runs:", lines)
    yield from listed(
        "compose.yaml no longer has these services, but their containers run on. Once their queues "
        "are empty,\ndocker compose up --detach --no-recreate --remove-orphans postgres ends them:",
        removed_services(),
    )


def removed_services() -> list[str]:
    """The services of the committed compose.yaml that it has no longer."""
    old, new = at_head("compose.yaml"), read("compose.yaml")
    return sorted(services_of(old) - services_of(new))


def services_of(compose: bytes) -> set[str]:
    """The names in a file that may have conflicts, of which only the template's side counts."""
    text = re.sub("^<{7}.*?^={7}$", "", compose.decode("utf-8"), flags=re.MULTILINE | re.DOTALL)
    _, _, rest = f"\n{text}".partition("\nservices:")
    services = re.split(r"^\w", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return {*re.findall(r"^  ([\w.-]+):", services, flags=re.MULTILINE)}


def settings(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What the user has to change in `.env`, which no update touches."""
    text = read(".env").decode("utf-8")
    queues = "".join(re.findall(r"^QUEUES=.*", text, flags=re.MULTILINE))
    named = re.findall(r':\s*\\?"(\w+)', queues)
    dropped = sorted(set(old["backends"]) - set(new["backends"]))
    todo = [f"QUEUES names {name}: move its queues" for name in dropped if name in named]
    names = re.findall(r"^(\w+)=", text, flags=re.MULTILINE)
    todo += [f"{old} is {new} now" for old, new in RENAMED_SETTINGS.items() if old in names]
    yield from listed("To change in .env, and wherever else you set it:", todo)
