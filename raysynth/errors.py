"""The errors that users see: each says what, where, got, expected and how to fix it.

`exit_code` is the command's: 2, refused: the same command will be refused again; 3, try again:
the same command goes on where it was; 1, a fault of raysynth's own. (130 and 143: a stop from
outside.)
"""

from __future__ import annotations

ADDED = "\nFailed to apply UDF transform after "
"""From here on Ray Data's words to programmers, which it adds to what a worker raised."""


class RaysynthError(Exception):
    """Anything raysynth refuses on purpose; the CLI prints it without a traceback."""

    exit_code = 2


class ConfigError(RaysynthError):
    """The configuration cannot be run as it is."""


class DataError(RaysynthError):
    """The data set's files or groups are not what the run needs."""


class DamagedError(DataError):
    """A file that a finished stage left is not as it was written: the stage can make it again."""

    def __init__(self, message: str, path: str) -> None:
        """`path`: path or URI of the file."""
        super().__init__(message, path)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def path(self) -> str:
        """Path or URI of the file."""
        return str(self.args[1])


class ModelError(RaysynthError):
    """A model's files are missing or do not fit."""


class StageError(RaysynthError):
    """A stage ended with failures; names them and what can be done."""

    exit_code = 3


class UnfaithfulError(StageError):
    """Synthetic images do not show their label; the same command is refused again."""

    exit_code = 2


class StorageError(RaysynthError):
    """Storage cannot be read or written now: full, refused, unreachable. The run goes on later."""

    exit_code = 3


class FaultError(RaysynthError):
    """What raysynth did not foresee: a fault of its own, or of a library it uses."""

    exit_code = 1


def reason_of(error: BaseException) -> str:
    """Why a worker failed, in a line or a few: a RaysynthError's whole message, else the last line.

    Ray hands errors on inside its own, some of them as the text of a traceback.
    """
    if (found := refusal_in(error)) is not None:
        return str(found)
    text = str(error).strip()
    _, told, message = text.rpartition(f"\n{RaysynthError.__module__}.")
    if told:
        return message.partition(": ")[2].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def refusal_in(error: BaseException) -> RaysynthError | None:
    """raysynth's own error that an error is, or was raised from; None: there is none.

    What Ray raises of a task's error is of its class too, but holds Ray's text: `cause` is it.
    """
    seen: set[int] = set()
    queue = [error]
    while queue:
        each = queue.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        inner = causes(each)
        if isinstance(each, RaysynthError) and not is_rays(each):
            each.args = (without_advice(each), *each.args[1:])
            return each
        queue += inner
    return None


def first_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def causes(error: BaseException) -> list[BaseException]:
    """What an error was raised from, and what Ray keeps of a task's or of several workers'."""
    kept = [getattr(error, "cause", None), error.__cause__]
    for name in ("worker_failures", "training_failures"):
        failures = getattr(error, name, None)
        kept += list(failures.values()) if isinstance(failures, dict) else []
    if isinstance(error, BaseExceptionGroup):
        kept += error.exceptions
    return [each for each in kept if isinstance(each, BaseException)]


def is_rays(error: BaseException) -> bool:
    """Whether an error is a class of Ray's, which is not imported to be asked."""
    return any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)


def without_advice(error: BaseException) -> str:
    """An error's text without what Ray Data adds for programmers."""
    return str(error).partition(ADDED)[0]
