"""A run as a Ray job: refused before anything is sent, sent, and followed to its exit code."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from raysynth.config.config import Config
from raysynth.config.files import load_config, read_values, split_arguments
from raysynth.errors import ConfigError
from raysynth.jobs.client import Jobs, exit_code
from raysynth.jobs.package import CONFIG, is_checkout, packed
from raysynth.method import FOLDERS
from raysynth.models.hub import named_models
from raysynth.models.sources import is_path
from raysynth.planning.preflight import check_configuration
from raysynth.terminal import clipped, masked, shown

STOP_SECONDS = 15
"""Between SIGTERM and SIGKILL of a job that is stopped; Ray's 3 s are too short to leave Ray."""
LONGEST_MESSAGE = 600
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Order:
    """What is to be run as a job."""

    config: Config
    """What `file` and `overrides` come to."""
    file: bytes | None
    overrides: Sequence[str]
    until: str | None
    """The last stage; None: all."""

    @property
    def run(self) -> str:
        """The run's folder or URI."""
        return self.config.root

    @property
    def entrypoint(self) -> str:
        """The job's command; `exec`: signals and exit code are the script's, with no shell."""
        until = ["--until", self.until] if self.until else []
        file = [CONFIG] if self.file is not None else []
        return shlex.join(
            ["exec", "python", "-m", "raysynth", "run", *until, *file, *self.overrides]
        )


def order_of(arguments: Sequence[str], until: str | None) -> Order:
    """`[CONFIG.yaml] [section.key=value ...]` as an order; refuses what the job would refuse.

    Raises
    ------
    ConfigError, DataError, ModelError
        As the job would, as far as it can be known on this machine.
    """
    files, overrides = split_arguments(arguments)
    config = load_config(files, overrides, in_job=True)
    check_here(config, until)
    return Order(config, _one_file(files), overrides, until)


def _one_file(files: Sequence[str]) -> bytes | None:
    """The settings of YAML files as one; None without any."""
    if len(files) == 1:
        return Path(files[0]).read_bytes()  # as it is written, comments too
    values, _ = read_values(files)
    return yaml.safe_dump(values, sort_keys=False).encode() if files else None


def order_again(config: Config, until: str | None) -> Order:
    """An order for a run by its whole configuration; raises as `order_of`."""
    check_here(config, until)
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return Order(config, text.encode(), (), until)


def check_here(config: Config, until: str | None) -> None:
    """Refuse what can be known here; data and models that only nodes see are the job's to check.

    Raises
    ------
    ConfigError, DataError, ModelError
        A relative path; an unknown stage; as `check_configuration`.
    """
    if until is not None and until not in FOLDERS:
        raise ConfigError(f"--until: got {until!r}, expected one of {', '.join(FOLDERS)}")
    named = named_models(config) | {"dataset.path": config.dataset.path or ""}
    named["finetune.start"] = config.finetune.start or ""
    paths = {key: path for key, path in named.items() if path and is_path(path)}
    for key, path in paths.items():
        if "://" not in path and not Path(path).expanduser().is_absolute():
            raise ConfigError(
                f"{key}: got the relative path {clipped(path)!r}, which no job has; expected an "
                "absolute path on storage that every node sees. Fix: give it from its root"
            )
    seen = {key for key, path in paths.items() if Path(path).expanduser().exists()}
    elsewhere = [f"{key}={value}" for key, value in named.items() if value and key not in seen]
    if elsewhere:
        told = shown(masked(", ".join(elsewhere)))
        print(f"raysynth: looked at by the job, not here: {told}", file=sys.stderr)
        return
    check_configuration(config)


def submit(jobs: Jobs, order: Order, name: str, *, code: bool) -> None:
    """Send an order to a cluster, as the job of this submission id.

    `code`: send this package too; False: the cluster's image has raysynth.
    """
    with packed(order.file, code=code) as folder:
        environment = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        jobs.submit(name, order.entrypoint, environment, order.run)


def submitted(
    order: Order, address: str | None, name: str | None, *, wait: bool, installed: bool
) -> int:
    """Submit an order and follow it; the exit code of its script, 0 where nobody waits.

    `name`: submission id; None: by the run's name and the time. `installed`: see `submit`.
    """
    name = name or f"{order.config.name}-{time.strftime('%m%d-%H%M%S')}"
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--id: got {clipped(shown(name))!r}, expected letters, digits, '.', '_' or '-'. Fix: "
            "--id birds-1"
        )
    jobs = Jobs(address)
    submit(jobs, order, name, code=is_checkout() and not installed)
    if not wait:
        print(name)
        print(
            f"raysynth: submitted to {jobs.address}{_commands(jobs, name, order.run)}",
            file=sys.stderr,
        )
        return 0
    print(f"raysynth: job {name} at {jobs.address}", file=sys.stderr, flush=True)
    return follow(jobs, name, order.run)


def follow(jobs: Jobs, name: str, run: str) -> int:
    """Show a job's log until it has ended; its script's exit code.

    Ctrl-C ends the following and not the job, and is raised on.
    """
    try:
        found = jobs.follow(name, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        told = f"\nraysynth: job {name} runs on{_commands(jobs, name, run)}"
        print(told, file=sys.stderr, flush=True)
        raise
    code = exit_code(found)
    ended = {"SUCCEEDED": "done", "STOPPED": "stopped"}.get(found.status.value, "failed")
    told = f"raysynth: job {name} {ended}, exit code {code}"
    if ended == "failed" and found.driver_exit_code is None:  # its log does not say why
        message = clipped(shown(masked(" ".join((found.message or "").split()))), LONGEST_MESSAGE)
        told += f": {message}. Fix: see to what it names; submitted again, the run goes on"
    print(told, file=sys.stderr)
    return code


def _commands(jobs: Jobs, name: str, run: str) -> str:
    """How to look at a job, follow it and stop it; a line each."""
    at = f" --address {jobs.address}"
    return (
        f"\n  look    raysynth status {shlex.quote(masked(run))}"
        f"\n  follow  raysynth logs {name} --follow{at}"
        f"\n  stop    raysynth stop {name}{at}"
    )
