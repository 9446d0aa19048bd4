"""What a reader copies from the documents: each command is executed, parsed, or said why not.

- Executed: a finished miniature is looked at, exported, verified and resumed as the tutorial says
  (slow); `plan`, `config` and `parts` as they stand; refusals with what the page shows of them.
- Parsed: every other `raysynth` and `ray` command by its own parser, its configuration loaded;
  scripts by their options; make's targets; extras of pip.
- Neither: `ELSEWHERE`, with the reason.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from raysynth.cli import app, split_arguments
from raysynth.config.documentation import show
from raysynth.config.files import load_config
from raysynth.evaluation.kinds import OURS
from raysynth.method import FOLDERS
from raysynth.parts import kind_of
from raysynth.planning.plan import plan_run
from raysynth.publish.commands import ADAPTERS, IMAGES
from raysynth.references.settings import METHODS
from tests.test_docs import DOCUMENTS, ROOT, written_by
from tests.test_pipeline import MINIATURE
from tests.test_reliability import SMALL

ELSEWHERE = {
    "aws": "an account of AWS",
    "gcloud": "an account of Google Cloud",
    "kubectl": "a Kubernetes cluster",
    "docker": "a daemon and a registry",
    "git": "an address of the repository's",
    "curl": "the endpoint of a Ray that is up",
    "pre-commit": "writes into the checkout's .git",
    ".ci/run": "runs this test",
    "chromium": "a report of a finished run",
    "exiftool": "a program that is not installed everywhere",
    "moto_server": "stays up until it is stopped",
    "prometheus": "a program that is not installed here",
    **dict.fromkeys((".", "cd", "sed", "for", "do", "done", "as()", "}", "grep"), "the shell's"),
}
"""First word -> what it needs that a test has not. Their blocks pass `bash -n`."""
SHOWN = {"raysynth status": "of a run under way, of another moment each time"}
"""Console blocks whose output is not compared, and why."""
FENCE = re.compile(r"^ *```([\w{}-]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
GENERATED = ("notebook", "CHANGELOG.md")
PAGES = [file for file in DOCUMENTS if not any(each in str(file) for each in GENERATED)]
RAYSYNTH = ("raysynth", ".venv/bin/raysynth")


@dataclass(frozen=True)
class Command:
    """A command of a page, without its comment, as the shell splits it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        """As a test's id."""
        return f"{self.page}: {' '.join(self.words)}"[:110]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(Page, text) of the fenced blocks of a language."""
    for file in PAGES:
        for found in FENCE.finditer(file.read_text()):
            if found[1] == language:
                yield str(file.relative_to(ROOT)), found[2]


def commands() -> Iterator[Command]:
    """Every command of every block, and those behind the prompts of console blocks."""
    written = list(blocks("bash"))
    written += [(page, typed(text)) for page, text in blocks("console")]
    for page, text in written:
        for line in re.sub(r"\\\n *", "", text).splitlines():
            words: list[str] = []
            for word in [*split(line), "&&"]:
                if word in ("&&", ";", "|"):
                    if words := unset(words):
                        yield Command(page, tuple(words))
                    words = []
                else:
                    words.append(word)


def split(line: str) -> list[str]:
    """A line as the shell splits it, without its comment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    return list(lexer)


def unset(words: list[str]) -> list[str]:
    """Without variables that are set before a command, and without where its output goes."""
    while words and (words[0] == "export" or re.match(r"\w+=", words[0])):
        inner = re.match(r"\w+=\$\((\w+)", words[0])
        words = [inner[1], *words[1:]] if inner else words[1:]
    return words[: words.index(">")] if ">" in words else words


def typed(text: str) -> str:
    """What is typed in a console block."""
    return "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))


COMMANDS = list(dict.fromkeys(commands()))
REFUSED = {line for _, text in blocks("console") for line in typed(text).splitlines()}
WRITTEN = [
    each for each in COMMANDS if each.words[0] in RAYSYNTH and " ".join(each.words) not in REFUSED
]
"""Those of raysynth itself, but for what pages show to be refused."""


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """Configurations that pages write out under a name (`# birds.yaml`), and `my.yaml`: any."""
    folder = tmp_path_factory.mktemp("documented")
    found = {"my.yaml": folder / "my.yaml"}
    found["my.yaml"].write_text("name: my\n")
    for _, text in blocks("yaml"):
        if name := re.match(r"# (\S+\.yaml)$", text, re.MULTILINE):
            found[name[1]] = folder / name[1]
            found[name[1]].write_text(text)
    return found


def loaded(arguments: list[str], files: dict[str, Path]):
    """The configuration of a command's arguments."""
    named, overrides = split_arguments(arguments)
    known = [ROOT / file if (ROOT / file).exists() else files[file] for file in named]
    return load_config([str(file) for file in known], overrides)


@pytest.mark.parametrize("command", WRITTEN, ids=str)
def test_commands_of_raysynth_are_as_documented(command, files):
    name, given = parsed(command.words[1:])
    assert given.get("until") in {None, *FOLDERS}
    assert set(given.get("again") or ()) <= set(FOLDERS)
    if name == "parts":
        return given["kind"] and kind_of(given["kind"])
    if name == "export":
        assert given["what"] in (*METHODS.names, OURS, IMAGES, ADAPTERS)
    if name == "config" and given["help_keys"]:
        return show(Quiet(), given["arguments"] or [])
    if "arguments" in given and not is_run(given["arguments"]):
        loaded(given["arguments"] or [], files)


class Quiet:
    """A console that prints nothing."""

    def print(self, *_: object, **__: object) -> None:
        """Nothing."""

    rule = print


def parsed(words) -> tuple[str, dict]:
    """(Command, its parameters), by the command's own parser."""
    group = typer.main.get_command(app)
    outer = group.make_context("raysynth", list(words))
    if "--version" in words:
        return "", {}
    name, command, rest = group.resolve_command(outer, list(words))
    return name, command.make_context(name, rest, parent=outer).params


def is_run(arguments) -> bool:
    """Whether the first argument is a run's folder, not a configuration."""
    return bool(arguments) and "=" not in arguments[0] and not arguments[0].endswith(".yaml")


def others() -> list[Command]:
    return [each for each in COMMANDS if each.words[0] not in RAYSYNTH]


@pytest.mark.parametrize("command", others(), ids=str)
def test_other_commands_are_known_or_said_why_not(command, files):
    first, *rest = command.words
    first = first.removeprefix(".venv/bin/")
    check = {"make": target, "python": script, "pip": extras, "ray": of_ray}.get(first)
    if check is None:
        assert first in ELSEWHERE, f"{first}: validate it, or say in ELSEWHERE why not"
    else:
        check(rest, files)


def target(words: list[str], _) -> None:
    """A target of the Makefile."""
    for word in words:
        if "=" not in word:
            assert re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.MULTILINE), word


def script(words: list[str], files) -> None:
    """A script that is there and has its options; a job's configuration loads."""
    if words[0] == "-c":
        return compile(words[1], "page", "exec")
    if words[0] == "-m":
        assert words[1] in ("raysynth", "pytest", "venv")
        if words[1] == "raysynth":
            parsed(words[2:])
        return
    text = (ROOT / words[0]).read_text()
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    assert not [each for each in options if f'"{each}"' not in text]
    if words[0].startswith("jobs/"):
        loaded(words[1:], files)


def extras(words: list[str], _) -> None:
    """Extras that the package has."""
    there = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if found := re.match(r"(?:raysynth|\.)\[(.+)\]", word):
            assert set(found[1].split(",")) <= set(there["optional-dependencies"])
        if word.endswith(".txt") or word.endswith(".lock"):
            assert (ROOT / word).exists()


def of_ray(words: list[str], files) -> None:
    """Ray's own parser takes it; what a job is to run is looked at in turn."""
    from ray.scripts.scripts import cli

    if "--" in words:
        cut = words.index("--")
        words, inner = [*words[:cut], "python"], words[cut + 1 :]
        script(inner[1:], files)
    command, context = cli, cli.make_context("ray", list(words))
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, list(words))
        words = [*words, "--help"] if hasattr(command, "resolve_command") and not words else words
        if hasattr(command, "resolve_command"):
            context = command.make_context("ray", list(words), parent=context)
    command.make_context("ray", list(words), parent=context)


@pytest.mark.parametrize(
    ("page", "text"), blocks("bash"), ids=lambda value: value if value.endswith(".md") else ""
)
def test_shells_can_read_the_blocks(page, text):
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_block_says_its_language():
    bare = [page for page, _ in blocks("")]
    assert not bare, "bash, console, yaml, text, python, ..."


@pytest.mark.parametrize(
    ("page", "text"), blocks("console"), ids=lambda value: value if value.endswith(".md") else ""
)
def test_what_a_console_shows_is_what_is_said(page, text):
    (line,), shown = typed(text).splitlines(), text.partition("\n")[2]
    words = shlex.split(line)
    if " ".join(words[:2]).removeprefix(".venv/bin/") in SHOWN:
        return
    assert words[0] in RAYSYNTH
    command = [sys.executable, "-m", "raysynth", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 2 and done.stderr == shown


PLANNED = {
    each
    for each in WRITTEN
    if each.page.startswith(("README", "docs/"))
    and each.words[1] in ("run", "plan", "config")
    and "--help-keys" not in each.words
    and not is_run(each.words[2:])
}


@pytest.mark.parametrize("command", sorted(PLANNED, key=str), ids=str)
def test_what_pages_run_is_not_refused(command, tmp_path):
    """With the embedded images; what names a reader's folder is loaded above."""
    arguments = [word for word in command.words[2:] if not word.startswith("--")]
    given = ["name=documented", f"storage_path={tmp_path}"]
    if not any("path=" in word or word.endswith(".yaml") for word in arguments):
        plan_run(load_config(None, [*arguments, *given]))


def test_the_tutorials_pictures_are_planned_as_it_says(tmp_path, files):
    assert written_by("pictures").write(tmp_path / "pictures") == 468
    given = [f"dataset.path={tmp_path}/pictures", f"storage_path={tmp_path}/runs"]
    (plan,) = plan_run(load_config(str(files["pictures.yaml"]), given)).generators.values()
    assert sorted(group.images for group in plan.groups) == [10, 10, 150, 150]
    assert {group.validation for group in plan.groups} == {12}


QUOTED = re.compile(r"^### `(.+)`$", re.MULTILINE)


def test_the_errors_that_are_explained_are_the_codes():
    """Headings of the page quote messages; `…` stands for what differs."""
    sources = "".join(file.read_text() for file in (ROOT / "raysynth").rglob("*.py"))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)
    quoted = QUOTED.findall((ROOT / "docs/troubleshooting.md").read_text())
    assert len(quoted) > 10
    for heading in quoted:
        for piece in heading.split("…"):
            assert piece.strip() in sources, heading


@pytest.mark.slow
def test_the_tutorials_commands_on_a_miniature(tmp_path):
    """As they stand, but for the run's size, name and place."""
    given = [*MINIATURE, *SMALL, "search.trials=0", f"storage_path={tmp_path}"]

    def raysynth(*words: str) -> str:
        command = [sys.executable, "-m", "raysynth", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    raysynth("run", *given)
    pages = ("docs/tutorial.md", "docs/resume.md")
    done = []
    for verb, *words in (each.words[1:] for page in pages for each in WRITTEN if each.page == page):
        placed = [word.replace("runs/quickstart", f"{tmp_path}/mini") for word in words]
        if verb in ("verify", "resume"):
            raysynth(verb, *placed)
        elif verb == "export":
            # The miniature's one reference, into a folder of the test's.
            named = {"group-dro": f"{tmp_path}/out", "group_dro": "erm"}
            raysynth(verb, *(named.get(word, word) for word in words), *given)
            assert (tmp_path / "out" / "README.md").is_file()
        else:
            continue
        done.append(verb)
    assert done == ["export", "resume", "verify", "verify"]
    assert "to come" in raysynth("status", f"{tmp_path}/mini")  # what --redo forgot


@pytest.mark.slow
def test_the_commands_of_adapters_and_pictures_alone(tmp_path):
    """In the order of the page, as they stand, but for sizes; from folders to pictures."""
    page, done = "docs/adapters-only.md", []
    small = {
        "train": ("finetune.steps=2", "finetune.batch_size=2", "finetune.preview_steps=2"),
        "generate": ("synthesis.steps=2",),
    }
    for folder in ("docs", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs/site").symlink_to(ROOT / "docs/site")
    for words in (each.words for each in COMMANDS if each.page == page):
        if "photos" in words:  # a base of the hub and a reader's photographs
            continue
        first = [sys.executable, *(("-m", "raysynth") if words[0] == "raysynth" else ())]
        command = [*first, *words[1:], *small.get(words[1], ())]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=tmp_path)
        assert ran.returncode == 0, (words, ran.stdout + ran.stderr)
        done.append(words[1])
    assert done == [
        *("docs/site/folders.py", "train", "train", "status", "verify", "resume"),
        *("generate", "generate", "resume"),
    ]
    made = {str(file.relative_to(tmp_path / "runs")) for file in (tmp_path / "runs").rglob("*.p*")}
    assert "things/adapters/sneaker/preview.png" in made
    assert "prompts/export/train/sneaker/sneaker-000001-0003.png" in made
    assert "prompts/images/group-0-00000.parquet" in made
