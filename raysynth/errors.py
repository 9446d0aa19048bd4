"""The errors that users see: each says what, where, got, expected and how to fix it.

`exit_code` is the command's: 2, refused: the same command will be refused again; 3, try again:
the same command goes on where it was. (1 is a fault of raysynth's own, 130 and 143 a stop from
outside.)
"""


class RaysynthError(Exception):
    """Anything raysynth refuses on purpose; the CLI prints it without a traceback."""

    exit_code = 2


class ConfigError(RaysynthError):
    """The configuration cannot be run as it is."""


class DataError(RaysynthError):
    """The data set's files or groups are not what the run needs."""


class ModelError(RaysynthError):
    """A model's files are missing or do not fit."""


class StageError(RaysynthError):
    """A stage ended with failures; names them and what can be done."""

    exit_code = 3


class StorageError(RaysynthError):
    """Storage cannot be read or written now: full, refused, unreachable. The run goes on later."""

    exit_code = 3


def reason_of(error: BaseException) -> str:
    """Why a worker failed, in a line or a few: a RaysynthError's whole message, else the last line.

    Ray hands errors on inside its own, some of them as the text of a traceback.
    """
    if (found := _refusal(error)) is not None:
        return str(found)
    text = str(error).strip()
    _, told, message = text.rpartition(f"\n{RaysynthError.__module__}.")
    if told:
        return message.partition(": ")[2].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def _refusal(error: BaseException | None, depth: int = 8) -> RaysynthError | None:
    """The RaysynthError that an error of Ray's holds."""
    if isinstance(error, RaysynthError) and not hasattr(error, "cause"):
        return error
    if error is None or not depth:
        return None
    inner = [getattr(error, name, None) for name in ("cause", "_base_exc", "__cause__")]
    inner += list((getattr(error, "worker_failures", None) or {}).values())
    found = (_refusal(each, depth - 1) for each in inner if isinstance(each, BaseException))
    return next((each for each in found if each is not None), None)
