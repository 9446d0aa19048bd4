"""The configuration refuses what cannot run, and says which key, what and how to mend it."""

from __future__ import annotations

import pytest
import yaml

from raysynth.benchmark.cells import plan_cells
from raysynth.config import Config
from raysynth.config_files import load_config
from raysynth.config_storage import resolve_storage
from raysynth.errors import ConfigError
from raysynth.pipeline import stage_digests


def test_defaults_are_the_embedded_run():
    config = load_config()
    assert (config.dataset.name, config.base.name, config.base.clip) == (
        "outfits",
        "embedded",
        "embedded",
    )
    assert config.dataset.severity == 0.99
    assert config.storage_path.startswith("/")


def test_overrides_win_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"seed": 3, "dataset": {"severity": 0.95}}))
    config = load_config(str(file), ["dataset.severity=0.97", "clustering.k=2"])
    assert (config.seed, config.dataset.severity, config.clustering.k) == (3, 0.97, 2)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.severty=0.95", "Did you mean `severity`"),
        ("nonsense.key=1", "nonsense: unknown key"),
        ("finetune.overrides.0-0.stepz=3", "0-0.stepz: unknown key. Did you mean `steps`"),
        ("finetune.overrides={0-0: {rank: 3}}", "Known keys: batch_size, learning_rate, steps"),
        ("finetune.steps=abc", "finetune.steps: "),
        ("dataset.severity=1.2", "dataset.severity"),
        ("dataset.severity=0.3", "dataset.severity"),
        ("prompts.template=a photo on {attribute}", "{label} is missing"),
        ("prompts.template=a {colour} {label}", "unknown field"),
        ("dataset.name=folder", "dataset.path is missing"),
        ("dataset.pair=[coat, coat]", "two different garments"),
        ("search.betas=[0.9, 0.1]", "search.betas"),
        ("name=../elsewhere", "name"),
        ("finetune.targets=[]", "finetune.targets is empty"),
        ("seed", "expected section.key=value"),
        ("seed.x=1", "seed"),
    ],
)
def test_bad_values_are_refused_by_name(override, said):
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("generator=edit prompts.template=a_{label}", "{attribute} is missing"),
        ("generator=shared prompts.template=a_{label}", "generator=shared a class's groups apart"),
        ("generator=auto prompts.template=a_{label}", "generator=shared a class's groups apart"),
        ("generator=dreambooth prompts.template=a_{label}", "no rare token"),
        ("generator=dreambooth prompts.token=''", "no rare token"),
        ("finetune.engine=full prompts.token=''", "generator=clustered_dreambooth binds"),
        ("generator=lora finetune.engine=full", "generator=dreambooth"),
        ("generator=auto candidates=[lora] finetune.engine=full", "generator=dreambooth"),
        ("generator=auto finetune.overrides.0-0.steps=3", "generator=auto trains those of"),
    ],
)
def test_generators_that_could_not_learn_what_they_are_for_are_refused(overrides, said):
    with pytest.raises(ConfigError, match=r"Fix:") as error:
        load_config(None, overrides.split())
    assert said in " ".join(str(error.value).split())
    load_config(None, ["prompts.template=a_{label}"])  # a model per cluster needs no words


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            "classifier.backbone=microsoft/resnet-50 resources.gpus_per_worker=1",
            "search.gpus_per_trial: 0, so trials would train microsoft/resnet-50 without a GPU",
        ),
        (
            "classifier.schedule=joint classifier.start=pretrained search.steps=[0,0]",
            "search.steps: [0, 0], but classifier.schedule=joint",
        ),
    ],
)
def test_searches_that_could_not_train_are_refused(overrides, said):
    with pytest.raises(ConfigError, match=r"Fix:") as error:
        load_config(None, overrides.split())
    assert said in " ".join(str(error.value).split())


def test_every_problem_is_listed_at_once():
    with pytest.raises(ConfigError, match=r"2 problem\(s\)"):
        load_config(None, ["seed=-1", "finetune.rank=0"])


def test_broken_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(str(tmp_path / "missing.yaml"))
    with pytest.raises(
        ConfigError, match=r"cannot be read \(Is a directory\); expected a YAML file"
    ):
        load_config(str(tmp_path))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="a mapping of sections"):
        load_config(str(tmp_path / "list.yaml"))


def test_relative_storage_is_refused_inside_a_ray_job(monkeypatch):
    assert resolve_storage("runs").endswith("/runs")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="relative path 'runs' inside a Ray job"):
        load_config(None, ["storage_path=runs"])
    assert load_config(None, ["storage_path=s3://bucket/runs"]).storage_path == "s3://bucket/runs"
    assert load_config(None, ["storage_path=/mnt/runs"]).storage_path == "/mnt/runs"


def test_every_field_is_described():
    def check(model, where):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation, f"{where}{name}.")
            else:
                assert field.description, f"{where}{name} has no description"

    check(Config, "")


def test_the_digest_follows_results_not_places():
    base = load_config()
    assert base.digest() == load_config(None, ["storage_path=/other", "name=other"]).digest()
    assert base.digest() == load_config(None, ["resources.workers=1"]).digest()
    assert base.digest() != load_config(None, ["seed=1"]).digest()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["generator=lora", "finetune.engine=full"], "Fix: generator=dreambooth"),
        (["generator=dreambooth", "finetune.engine=lora"], "Fix: generator=lora"),
        (["generator=gan"], "generator.*vanilla"),
    ],
)
def test_a_generator_that_is_not_what_it_says_is_refused(overrides, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(None, overrides)


def test_learning_rates_follow_the_backbone_unless_given():
    small, tower = load_config(), load_config(None, ["classifier.backbone=microsoft/resnet-50"])
    assert small.classifier.learning_rate == 3e-3 and small.references.learning_rates == (3e-3,)
    assert tower.classifier.learning_rate == tower.classifier.full_learning_rate == 1e-4
    assert tower.references.learning_rates == (1e-4,)
    assert tower.search.learning_rates == (1e-5, 1e-3)
    given = ["classifier.backbone=clip", "classifier.learning_rate=2e-3", "search.steps=[0, 0]"]
    given = load_config(None, given)
    assert given.classifier.learning_rate == 2e-3 and given.classifier.full_learning_rate == 1e-4
    assert given.search == small.search.model_copy(update={"steps": (0, 0)})
    assert Config.model_validate(tower.model_dump()) == tower
    scratch = ["classifier.backbone=microsoft/resnet-50", "classifier.start=scratch"]
    assert load_config(None, scratch).classifier.learning_rate == 3e-3
    theirs = ["classifier.backbone=microsoft/resnet-50", "references.start=scratch"]
    assert load_config(None, theirs).references.learning_rates == (3e-3,)
    assert load_config(None, theirs).classifier.learning_rate == 1e-4


def test_mixtures_have_the_learning_rates_of_their_own_start():
    """References may start otherwise, or not be there at all."""
    tower = ["classifier.backbone=microsoft/resnet-50", "classifier.mixtures=[usb]"]
    for more, theirs, mixed in (
        ([], (1e-4,), (1e-4,)),
        (("references.start=scratch",), (3e-3,), (1e-4,)),
        (("classifier.start=scratch", "references.start=pretrained"), (1e-4,), (3e-3,)),
        (("references.names=[]",), (3e-3,), (1e-4,)),
        (("references.start=scratch", "references.learning_rates=[0.01]"), (0.01,), (0.01,)),
        (
            ("references.start=scratch", "classifier.mixture_learning_rates=[0.02]"),
            (3e-3,),
            (0.02,),
        ),
    ):
        config = load_config(None, [*tower, *more])
        assert config.references.learning_rates == theirs
        assert config.for_mixtures().learning_rates == mixed
        again = Config.model_validate(config.model_dump())
        assert again == config and again.for_mixtures() == config.for_mixtures()


def test_the_mixtures_rates_are_the_classifications_alone():
    """And part of its digest only where they are not the references'."""
    same, other = (
        stage_digests(load_config(None, [f"classifier.mixture_learning_rates={rates}"]))
        for rates in ("null", "[0.01]")
    )
    assert {name for name in same if same[name] != other[name]} == {"classification", "report"}


def test_a_row_with_another_backbone_has_that_backbones_rates():
    rows = "benchmark.rows={tower: {}, small: {classifier.backbone: small}}"
    config = load_config(None, ["classifier.backbone=clip", "benchmark.seeds=1", rows])
    rates = {cell.row: cell.config.classifier.learning_rate for cell in plan_cells(config)}
    assert rates == {"tower": 1e-4, "small": 3e-3}
