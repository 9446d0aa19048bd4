"""The errors that users see: each says what, where, got, expected and how to fix it.

`exit_code` is the command's: 2, refused: the same command will be refused again; 3, try again: the
same command goes on where it was; 1, a fault of raysynth's own. (130 and 143: a stop from outside.)
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


class FaultError(RaysynthError):
    """What raysynth did not foresee: a fault of its own, or of a library it uses."""

    exit_code = 1
