"""Ray's job server: a job's start, log, end and exit code, in raysynth's own words."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysynth.cluster.local import guard_token
from raysynth.errors import ConfigError, StageError
from raysynth.terminal import clipped, masked, shown

ADDRESS = "http://127.0.0.1:8265"
"""Where a head's job server listens unless told otherwise."""
PATIENCE_SECONDS = 120.0
"""How long a head that does not answer is asked again."""
AGENT_SECONDS = 60.0
"""How long a head that has just started may know no agent that starts a job."""
POLL_SECONDS = 1.0
LAST_TRIES = 5
"""For the rest of the log of a job that has ended."""
QUIET_SECONDS = 60.0
"""A log without a word for so long may be a connection that was lost without a word."""
LONGEST_REASON = 600
RUN = "raysynth_run"
"""Key of a job's metadata: the run's folder or URI."""
TERMINATED, TRY_AGAIN = 143, 3


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str | None = None) -> None:
        """`address`: of the job server; None: what the environment names, else this machine's.

        Raises
        ------
        ConfigError
            It is no address of a job server, or its token is not ours.
        StageError
            Nothing answers there.
        """
        self.address = _address(address)
        _use_token()
        from ray.job_submission import JobSubmissionClient

        for name in ("dashboard_sdk", "job.sdk"):  # they tell of each upload
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        with self._in_words(""):
            self._client = JobSubmissionClient(self.address)

    def submit(self, name: str, entrypoint: str, environment: Mapping[str, Any], run: str) -> None:
        """Start a job.

        Parameters
        ----------
        name : submission id, which nobody may have used on this cluster.
        entrypoint : the shell's command.
        environment : Ray's runtime environment.
        run : the run's folder or URI, kept with the job.
        """
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                with self._in_words(name):
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=name,
                        runtime_env=dict(environment),
                        metadata={RUN: masked(run)},
                    )
                return
            except StageError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def info(self, name: str) -> Any:
        """Ray's `JobDetails` of a job; ConfigError: there is none of this id."""
        with self._in_words(name):
            return self._client.get_job_info(name)

    def log(self, name: str) -> str:
        """All that a job has written so far."""
        self.info(name)
        with self._in_words(name):
            return str(self._client.get_job_logs(name))

    def stop(self, name: str) -> None:
        """Ask for a job's end: SIGTERM, and SIGKILL where that is not heard in time."""
        with self._in_words(name):
            self._client.stop_job(name)

    def follow(self, name: str, show: Callable[[str], object]) -> Any:
        """Hand on what a job writes until it has ended; its `JobDetails` then.

        A connection that is lost is made again, and a head that is away is waited for.

        Raises
        ------
        StageError
            The head has not answered for PATIENCE_SECONDS.
        """
        from aiohttp import ClientError

        self.info(name)
        log, answered, tries = _Log(self._client, name, show), time.monotonic(), 0
        while True:
            try:
                asyncio.run(log.tail())
                whole = True
            except (ClientError, OSError, RuntimeError):
                whole = False
            try:
                found = self.info(name)
            except StageError:
                if time.monotonic() - answered > PATIENCE_SECONDS:
                    raise
            else:
                answered = time.monotonic()
                tries += found.status.is_terminal()
                if tries and (whole or tries == LAST_TRIES):
                    return found
            time.sleep(POLL_SECONDS)

    def wait(self, name: str, seconds: float) -> Any:
        """A job's `JobDetails` once it has ended, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while not (found := self.info(name)).status.is_terminal() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return found

    @contextmanager
    def _in_words(self, name: str) -> Iterator[None]:
        """What Ray's client raises, as what it means; `name`: of the job that is spoken of."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ConfigError(
                f"{self.address}: the cluster asks for a token that is not the one here. Fix: copy "
                "the head's ~/.ray/auth_token to this machine (mode 600), or name it by "
                "RAY_AUTH_TOKEN_PATH"
            ) from error
        except (OSError, ValueError) as error:  # requests' own are OSErrors
            raise StageError(
                f"{self.address}: no job server answers ({_short(error)}). Fix: start the head "
                "(`ray start --head`), or name another one: --address http://HEAD:8265"
            ) from error
        except RuntimeError as error:
            raise _refused(self.address, name, error) from error


class _Log:
    """What a job has written, told once, over however many connections."""

    def __init__(self, client: Any, name: str, show: Callable[[str], object]) -> None:
        self._client, self._name, self._show = client, name, show
        self._told = 0

    async def tail(self) -> None:
        """Show what is new until the log ends; TimeoutError where it is silent for too long."""
        lines, seen = aiter(self._client.tail_job_logs(self._name)), 0
        while True:
            try:
                text = await asyncio.wait_for(anext(lines), QUIET_SECONDS)
            except StopAsyncIteration:
                return
            seen += len(text)
            if seen > self._told:  # each connection begins with the log's first line
                self._show(text[-(seen - self._told) :])
                self._told = seen


def exit_code(found: Any) -> int:
    """The code of a job's script, from Ray's `JobDetails`; as of a shell where it was killed.

    143: it was stopped; 3: there is none, for the script never ran, or its node was lost.
    """
    if found.status == "SUCCEEDED":
        return 0
    if found.status == "STOPPED":
        return TERMINATED
    code = found.driver_exit_code
    if not code:
        return TRY_AGAIN
    return int(code) if code > 0 else 128 - int(code)


def _refused(address: str, name: str, error: RuntimeError) -> ConfigError | StageError:
    text = str(error)
    if "status code 404" in text:
        return ConfigError(
            f"{name}: no job of this id at {address}. Fix: `ray job list` has the ids; or name the "
            "run's folder instead"
        )
    if "already exists" in text or "already been used" in text:
        return ConfigError(
            f"--id: a job {name} is there already, and an id is used once. Fix: another --id, or "
            "none"
        )
    return StageError(
        f"{address}: Ray's job server refuses ({_short(error)}). Fix: see the head's log; its Ray "
        "and Python must be of these versions"
    )


def _short(error: BaseException) -> str:
    return clipped(shown(masked(" ".join(str(error).split()))), LONGEST_REASON)


def _address(given: str | None) -> str:
    """Address of a job server by the argument, else by the environment, else this machine's."""
    server, cluster = (os.environ.get(f"RAY_{n}") for n in ("API_SERVER_ADDRESS", "ADDRESS"))
    address = given or server or (cluster if cluster and "://" in cluster else None) or ADDRESS
    if not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"--address: got {masked(address)}, expected the http:// address of the head's job "
            f"server. Fix: --address {ADDRESS}, or http://HEAD:8265"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray's client asks the environment first
    return address


def _use_token() -> None:
    """Speak with the token that is here, as `ray job` does with RAY_AUTH_MODE=token alone."""
    guard_token(make=False)
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
