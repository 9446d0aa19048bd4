"""The errors that users see: each says what, where, got, expected and how to fix it."""


class RaysynthError(Exception):
    """Anything raysynth refuses on purpose; the CLI prints it without a traceback."""


class ConfigError(RaysynthError):
    """The configuration cannot be run as it is."""


class DataError(RaysynthError):
    """The data set's files or groups are not what the run needs."""


class ModelError(RaysynthError):
    """A model's files are missing or do not fit."""


class StageError(RaysynthError):
    """A stage ended with failures; names them and what can be done."""
