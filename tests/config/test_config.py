"""The configuration refuses what cannot run, and says which key, what and how to mend it."""

from __future__ import annotations

import sys
import time

import pytest
import yaml
from fsspec.registry import _registry

from raysynth.benchmark.cells import plan_cells
from raysynth.cluster.capacity import _check_memory
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.config.storage import require_filesystem, resolve_storage
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
        (
            "finetune.overrides={0-0: {colour: 3}}",
            "Known keys: alpha, batch_size, learning_rate, rank",
        ),
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


NUMBER_KEYS = [
    "seed",
    "dataset.severity",
    "dataset.validation_share",
    "clustering.k",
    "finetune.steps",
    "finetune.learning_rate",
    "classifier.learning_rate",
    "search.trials",
    "search.gpus_per_trial",
    "resources.workers",
    "benchmark.seeds",
]
LIST_KEYS = [
    "references.weight_decays",
    "references.head_weight_decays",
    "search.ratios",
    "search.temperatures",
    "search.learning_rates",
    "synthesis.strength_outside",
]


@pytest.mark.parametrize("value", ["true", "yes", ".inf", "-.inf", ".nan", "'inf'", "1e999"])
def test_booleans_infinities_and_nan_are_no_numbers(value):
    for key in NUMBER_KEYS:
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
            load_config(None, [f"{key}={value}"])
    for key in LIST_KEYS:
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
            load_config(None, [f"{key}=[{value}, {value}]"])
    for inside in ("clustering.k={a/b: %s}", "finetune.overrides={0-0: {steps: %s}}"):
        with pytest.raises(ConfigError):
            load_config(None, [inside % value])


def test_every_numeric_key_refuses_booleans():
    refused = 0
    for name, section in [("", Config), *((f"{n}.", type(s)) for n, s in Config() if n != "seed")]:
        for key, field in getattr(section, "model_fields", {}).items():
            text = str(field.annotation)
            if "bool" not in text and ("int" in text or "float" in text):
                value = "[true, true]" if text.startswith("tuple") else "true"
                with pytest.raises(ConfigError, match="got true, which YAML reads"):
                    load_config(None, [f"{name}{key}={value}"])
                refused += 1
    assert refused > 70


def test_whole_numbers_may_be_written_as_before():
    assert load_config(None, ["seed=1.0"]).digest() == load_config(None, ["seed=1"]).digest()
    assert load_config(None, ["finetune.flip=yes"]) == load_config()


@pytest.mark.parametrize("number", ["9" * 30, "'" + "9" * 30 + "'", "' -9_" + "9" * 30 + "'"])
def test_numbers_that_no_machine_counts_with_are_refused_in_quotes_too(number):
    with pytest.raises(ConfigError, match=r"search\.trials: expected a number below 2\^63"):
        load_config(None, [f"search.trials={number}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nname: a\nseed: 2\n", r"key 'seed' is there twice, first(?s:.*)line 3"),
        ("dataset: {severity: 0.9, severity: 0.95}", "key 'severity' is there twice"),
        ("name: !!int x", "'x' is no int"),
        ("name: !!float x", "'x' is no float"),
        ("name: !!bool x", "'x' is no bool"),
        ("name: !!timestamp x", "the tag"),
        ("name: !!binary aGk=", "the tag"),
        ("name: !!python/object:os.system x", "the tag"),
        ("name: !!map x", "a mapping expected"),
        ("seed: " + "[" * 2000, "nested more than 40 levels deep"),
        ('name: "\\U00110000"', "not in range"),  # no character has this number
        ("seed: " + "9" * 5000, "is no int"),
        ("benchmark: {rows: {a: &x {b: *x}}}", "an alias of what it stands in"),
        ("{[1]: 2}", "a key that is no name"),
        ('name: "\\ud800"', "half a character"),
        ("#" + "x" * 300_000, "more than 256 kB"),
        ("[" + "1," * 30_000 + "]", "more than 20,000 values"),
    ],
)
def test_odd_and_hostile_yaml_is_refused_quickly_and_briefly(tmp_path, text, said):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=said) as error:
        load_config(str(file))
    assert len(str(error.value)) < 2000 and time.process_time() - start < 5


def test_a_small_file_has_a_small_message(tmp_path):
    """Aliases of aliases: 9^5 values where one number belongs."""
    file = tmp_path / "run.yaml"
    for levels, said in (("abc", "weight_decays"), ("abcde", "aliases that stand for more than")):
        lines, before = [], "1"
        for name in levels:
            lines.append(f"- &{name} [{', '.join([before] * 9)}]")
            before = f"*{name}"
        file.write_text("references:\n  weight_decays:\n  " + "\n  ".join(lines))
        with pytest.raises(ConfigError, match=said) as error:
            load_config(str(file))
        assert len(str(error.value)) < 6000
    file.write_text("references: {weight_decays: [" + "x, " * 9000 + "]}")
    with pytest.raises(ConfigError, match=r"and 8,9.. more"):
        load_config(str(file))


def test_files_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(str(file))
    file.write_bytes(b"\xef\xbb\xbfseed: 3")  # as Windows' editors write UTF-8
    assert load_config(str(file)).seed == 3
    with pytest.raises(ConfigError, match="more than 256 kB"):
        load_config("/dev/zero")


def test_arguments_that_are_no_text_are_refused():
    for override in ("\udcff=1", "name=\udcff", "a." * 99 + "a=1"):
        with pytest.raises(ConfigError) as error:
            load_config(None, [override])
        str(error.value).encode()


def test_keys_of_mappings_are_read_as_they_are_written(tmp_path):
    text = "{0: coat, 01: bag, yes: a, No: b, 1.0: c, 2024-01-01: d, null: e, '0x1': f}"
    file = tmp_path / "run.yaml"
    file.write_text(f"dataset: {{label_words: {text}}}")
    expected = {"0": "coat", "01": "bag", "yes": "a", "No": "b", "1.0": "c"}
    expected |= {"2024-01-01": "d", "null": "e", "0x1": "f"}
    for config in (
        load_config(str(file)),
        load_config(None, [f"dataset.label_words={text}"]),
    ):
        assert config.dataset.label_words == expected
        dumped = yaml.safe_dump(config.model_dump(mode="json"))
        file.write_text(dumped)
        assert load_config(str(file)) == config
    assert load_config(None, ["clustering.k={0: 2}"]).clustering.k == {0: 2}
    file.write_text("dataset: {label_words: {0: coat}}")
    config = load_config(str(file), ["dataset.label_words.0=bag"])
    assert config.dataset.label_words == {"0": "bag"}
    assert load_config(None, ["name=2024-13-45"]).name == "2024-13-45"
    with pytest.raises(ConfigError, match=r"label_words: got true(?s:.*)in quotes, such as 'yes'"):
        load_config(None, ["dataset.label_words={a: yes}"])
    with pytest.raises(ConfigError, match=r"pair.0(?s:.*)Fix: quote it, e.g. '0'"):
        load_config(None, ["dataset.pair=[0, 1]"])


@pytest.mark.parametrize(
    "template",
    ["a {label.x}", "{label.__class__}", "{label[0]}", "{label:>9}", "{label!r}", "{{label}}", "{",
     "{} {label}", "{label:{token}}"],
)  # fmt: skip
def test_templates_speak_of_fields_and_nothing_else(template):
    with pytest.raises(ConfigError, match=r"prompts\.template"):
        load_config(None, [f"prompts.template='{template}'"])


@pytest.mark.parametrize(
    "key",
    ["name", "storage_path", "base.name", "base.clip", "base.revision", "base.device",
     "clustering.encoder", "classifier.backbone", "dataset.path", "resources.address"],
)  # fmt: skip
def test_empty_names_are_refused(key):
    for value in ("''", "' '", '"a\\0b"'):
        with pytest.raises(ConfigError, match=key):
            load_config(None, [f"{key}={value}"])


def test_devices_are_torchs():
    for name in ("nonsense", "CPU", "cuda:", "cuda:-1", "cuda:0:0", "cuda:01", "meta"):
        with pytest.raises(ConfigError, match=r"base\.device: expected auto"):
            load_config(None, [f"base.device='{name}'"])
    for name in ("auto", "cpu", "cuda", "cuda:7", "mps", "xpu:0"):
        assert load_config(None, [f"base.device={name}"]).base.device == name


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("memory://runs", "kept by one process"),
        ("http://host/runs", "cannot be written"),
        ("github://org:repo@sha/runs", "cannot be written"),
        ("zip://runs.zip", "one file"),
        ("simplecache::s3://bucket/runs", "chain of filesystems"),
        ("dir://runs", "wraps another"),
        ("foo://runs", "unknown protocol 'foo'; expected one of abfs, "),
        ("s3://", "no bucket"),
        ("~nosuchuser/runs", "no home of '~nosuchuser'"),
    ],
)
def test_storage_that_workers_do_not_share_is_refused(path, said):
    with pytest.raises(ConfigError, match="storage_path") as error:
        load_config(None, [f"storage_path={path}"])
    assert said in str(error.value)


def test_storage_among_the_images_is_refused(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (tmp_path / "link").symlink_to(images)
    folder = ["dataset.name=folder", f"dataset.path={images}"]
    for inside in (images, images / "runs", tmp_path / "link" / "runs"):
        with pytest.raises(ConfigError, match=r"lies inside dataset\.path"):
            load_config(None, [*folder, f"storage_path={inside}"])
    for outside in (tmp_path, tmp_path / "images2"):
        load_config(None, [*folder, f"storage_path={outside}"])
    remote = ["dataset.name=folder", "dataset.path=s3://bucket/images"]
    with pytest.raises(ConfigError, match="lies inside"):
        load_config(None, [*remote, "storage_path=s3://bucket/images/runs"])
    row = f"benchmark.rows={{a: {{dataset.name: folder, dataset.path: {tmp_path}}}}}"
    with pytest.raises(ConfigError, match="lies inside"):
        plan_cells(load_config(None, [row, f"storage_path={tmp_path}/runs"]))


@pytest.mark.parametrize(
    "uri",
    ["ftp://user:HIDDEN@host/x", "s3://KEY:HID/DEN@bucket/x", "https://host/x?X-Amz-Signature=HIDDEN",
     "gs://bucket/x?a=1&access_token=HIDDEN"],
)  # fmt: skip
def test_secrets_in_uris_are_refused_and_not_shown(uri, tmp_path):
    folder = "dataset.name=folder"
    for override in (
        f"storage_path={uri}",
        f"dataset.path={uri}",
        f"base.name={uri}",
        f"base.clip={uri}",
        f"clustering.encoder={uri}",
        f"classifier.backbone={uri}",
        f"resources.address={uri}",
        f"benchmark.records=[{uri}]",
        f"benchmark.rows={{a: {{dataset.path: '{uri}'}}}}",
        f"storage_path=[{uri}",
        uri,
    ):
        with pytest.raises(ConfigError) as error:
            load_config(None, [folder, override])
        assert "HIDDEN" not in str(error.value) and "HID/DEN" not in str(error.value)
    with pytest.raises(ConfigError, match="AWS_PROFILE"):
        load_config(None, [f"storage_path={uri}"])
    with pytest.raises(ConfigError) as error:
        load_config(uri)
    assert "HID" not in str(error.value)


def test_a_host_with_a_port_is_no_secret():
    for uri in ("s3://bucket:9000/runs@2", "abfs://box@account.dfs.core.windows.net/x"):
        assert load_config(None, [f"dataset.path={uri}", "dataset.name=folder"]).dataset.path == uri


def test_a_package_that_is_missing_is_named(monkeypatch):
    for protocol, package in (("gs", "gcsfs"), ("s3", "s3fs")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(_registry, protocol, raising=False)
        with pytest.raises(ConfigError, match=f"pip install {package}"):
            require_filesystem(f"{protocol}://bucket/runs")


def test_an_object_store_larger_than_the_machine_is_refused_before_ray():
    with pytest.raises(ConfigError, match="object_store_memory"):
        load_config(None, ["resources.object_store_memory=1000000000000000"])
    config = load_config(None, ["resources.object_store_memory=90000000000000"])
    with pytest.raises(ConfigError, match=r"this machine has [\d,]+ of memory"):
        _check_memory(config.resources)


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


def rates_of(*overrides: str) -> tuple:
    """Settled learning rates: stage 1, stage 2 (full), references, mixtures, search."""
    config = load_config(None, overrides)
    classifier, references = config.classifier.settled(), config.references
    mixtures = references.for_mixtures(config.classifier).learning_rates
    theirs = references.settled(config.classifier).learning_rates
    searched = config.search.settled(config.classifier).learning_rates
    return classifier.learning_rate, classifier.full_learning_rate, theirs, mixtures, searched


SCRATCH = (3e-3, 1e-3, (3e-3,), (3e-3,), (1e-3, 6e-3))
PRETRAINED = (1e-4, 1e-4, (1e-4,), (1e-4,), (1e-5, 1e-3))


def test_learning_rates_follow_the_backbone_unless_given():
    tower = "classifier.backbone=microsoft/resnet-50"
    assert rates_of() == rates_of("classifier.start=pretrained") == SCRATCH
    assert rates_of(tower) == PRETRAINED
    assert rates_of(tower, "classifier.start=scratch") == SCRATCH
    given = ["classifier.backbone=clip", "classifier.learning_rate=2e-3", "search.steps=[0, 0]"]
    assert rates_of(*given) == (2e-3, 1e-4, (1e-4,), (1e-4,), (1e-3, 6e-3))
    assert rates_of(tower, "search.learning_rates=[0.1, 0.2]")[-1] == (0.1, 0.2)
    config = load_config(None, [tower])
    assert Config.model_validate(config.model_dump()) == config
    assert config.classifier.learning_rate is None and config.search.learning_rates is None


@pytest.mark.parametrize(
    ("more", "theirs", "mixed"),
    [
        ([], (1e-4,), (1e-4,)),
        (["references.start=scratch"], (3e-3,), (1e-4,)),
        (["classifier.start=scratch", "references.start=pretrained"], (1e-4,), (3e-3,)),
        (["references.names=[]"], (3e-3,), (1e-4,)),
        (["references.start=scratch", "references.learning_rates=[0.01]"], (0.01,), (0.01,)),
    ],
)
def test_mixtures_have_the_learning_rates_of_their_own_start(more, theirs, mixed):
    """References may start otherwise, or not be there at all."""
    tower = ["classifier.backbone=microsoft/resnet-50", "classifier.mixtures=[usb]"]
    assert rates_of(*tower, *more)[2:4] == (theirs, mixed)


def test_rates_decide_as_the_numbers_they_stand_for():
    same, given = (
        stage_digests(load_config(None, each))
        for each in ([], ["classifier.learning_rate=3e-3", "search.learning_rates=[1e-3, 6e-3]"])
    )
    assert same == given


def test_the_mixtures_rates_are_no_knob_of_their_own_any_more():
    old = {"classifier": {"mixture_learning_rates": None}}
    assert Config.model_validate(old) == Config()
    with pytest.raises(ConfigError, match="Fix: leave it out; references"):
        load_config(None, ["classifier.mixture_learning_rates=[0.01]"])


def test_a_row_with_another_backbone_has_that_backbones_rates():
    rows = "benchmark.rows={tower: {}, small: {classifier.backbone: small}}"
    config = load_config(None, ["classifier.backbone=clip", "benchmark.seeds=1", rows])
    rates = {
        cell.row: cell.config.classifier.settled().learning_rate for cell in plan_cells(config)
    }
    assert rates == {"tower": 1e-4, "small": 3e-3}
