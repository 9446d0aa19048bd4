"""Going on with a run of another command than `run`, by the configuration that its folder keeps."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.adapter_runs.settings import TrainConfig
from raysynth.base_run import PretrainConfig, run_pretrain
from raysynth.config.files import apply_override, read_written, validated
from raysynth.config.ground import RunConfig
from raysynth.errors import ConfigError
from raysynth.jobs.folder import refuse_places
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.stages.run import CONFIG
from raysynth.storage.files import exists

KINDS: dict[str, type[RunConfig]] = {
    "train": TrainConfig,
    "generate": GenerateConfig,
    "pretrain": PretrainConfig,
}


def configuration_again(root: str, overrides: Sequence[str] = ()) -> RunConfig | None:
    """The configuration of such a run, for going on where it lies; None: it is of `run`, or none.

    Raises ConfigError where it cannot be read, or an override would make another run of it.
    """
    path = f"{root}/{CONFIG}"
    values = read_written(path) if exists(path) else {}
    kind = KINDS.get(str(values.get("command")))
    if kind is None:
        return None
    refuse_places(root, overrides, str(values["command"]))
    for override in overrides:
        apply_override(values, override)
    folder, _, name = root.rpartition("/")  # it may have been moved
    name = name.removesuffix(kind.suffix)
    return validated(kind, values | {"storage_path": folder, "name": name}, path)


def resumed(root: str, overrides: Sequence[str], loudness: int, *, plainly: bool) -> bool:
    """Go on with such a run and print what came out; False: it is of `run`, or none.

    `plainly`: nothing was asked that only a run of the method knows; else ConfigError.
    """
    config = configuration_again(root, overrides)
    if config is None:
        return False
    if not plainly:
        raise ConfigError("--submit, --until: are of `raysynth run`. Fix: leave them out")
    print(go_on(config, loudness))
    return True


def go_on(config: RunConfig, loudness: int) -> str:
    """Make what is not there of a run of `KINDS`; what came out, as a line."""
    if isinstance(config, TrainConfig):
        from raysynth.adapter_runs.run import run_train

        return run_train(config, loudness=loudness).said
    if isinstance(config, PretrainConfig):
        return run_pretrain(config, loudness=loudness).said
    from raysynth.prompt_runs.run import run_generate

    assert isinstance(config, GenerateConfig), type(config)
    return run_generate(config, loudness=loudness).said
