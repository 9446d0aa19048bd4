"""The configuration of `raysynth train`: its defaults, its language, what it refuses."""

from __future__ import annotations

import pytest

from raysynth.adapter_runs.settings import TrainConfig, read_train
from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import ConfigError
from raysynth.finetune.settings import FinetuneConfig
from raysynth.planning.proposal import GPU


def test_files_then_settings_over_the_commands_own_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("finetune: {steps: 7, rank: 4}\nseed: 3\n")
    config = read_train("my pets/", ["finetune.steps=9"], [str(tmp_path / "a.yaml")])
    assert (config.finetune.steps, config.finetune.rank, config.seed) == (9, 4, 3)
    assert (config.finetune.min_images, config.finetune.preview_steps) == (2, 50)
    assert config.name == "my-pets" and config.root.endswith("/runs/my-pets")
    assert config.training.budget.steps == 9 and config.training.engine == "lora"
    assert config[FinetuneConfig] is config.finetune
    assert config[ResourcesConfig] is config.resources
    again = TrainConfig.model_validate(config.model_dump(mode="json"))
    assert again == config and again.digest() == config.digest()


def test_another_base_than_the_embedded_one_has_the_defaults_of_init():
    asked = GPU["finetune"]
    large = read_train("pets", ["base.name=owner/model"]).finetune
    assert large.learning_rate == asked["learning_rate"] and large.steps == asked["steps"]
    assert read_train("pets").finetune.learning_rate is None
    own = read_train("pets", ["base.name=owner/model", "finetune.learning_rate=3e-4"]).finetune
    assert own.learning_rate == 3e-4


def test_to_is_the_runs_folder(tmp_path):
    config = read_train("pets", to=f"{tmp_path}/out/")
    assert config.root == f"{tmp_path}/out" and config.name == "out"
    assert read_train("pets", to="s3://bucket/runs/out").root == "s3://bucket/runs/out"
    with pytest.raises(ConfigError, match="--to, name: both say"):
        read_train("pets", ["name=x"], to="out")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("finetune.terms=[cbdm]", "finetune.terms: without use here: .*Fix: leave it out"),
        ("finetune.engine=full", "finetune.engine: without use here"),
        ("finetune.stepps=3", "Did you mean `steps`"),
        ("synthesis.steps=3", "synthesis: unknown key. Known keys: aspect_ratio, base, caption"),
        ("caption=a {label}", "caption: unknown field 'label'; expected {name}"),
        ("finetune.rank=0", "finetune.rank: .* greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting, said):
    with pytest.raises(ConfigError, match=said):
        read_train("pets", [setting])
