"""The stage on a real Ray: what it leaves, what it goes on from; and what is refused before."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from raysynth.audit import without
from raysynth.audit.checks import check, check_groups
from raysynth.audit.method import Generated
from raysynth.audit.settings import AuditConfig
from raysynth.audit.stage import run_audit
from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.method import nodes_of
from raysynth.pipeline import run_pipeline
from raysynth.planning.plan import plan_run
from raysynth.planning.preflight import check_configuration
from raysynth.progress import Progress
from raysynth.storage.tables import read_table
from tests.audit.conftest import KNOBS
from tests.audit.test_differences import images_of, synthetic
from tests.finetune.conftest import GROUPS
from tests.test_pipeline import miniature

__all__ = ["synthetic"]
GUDA = {"name": "guda", **KNOBS.model_dump()}


def generated(room, full, synthetic, work, **section) -> Generated:
    config = room.config("shared", **{**full.settings.model_dump(), "precision": "float32"})
    audit = AuditConfig.model_validate({"method": GUDA, **section})
    resources = config.resources.model_copy(update={"workers": 1})
    config = config.model_copy(update={"audit": audit, "resources": resources})
    folders = (room.real, room.clusters, full.work, str(synthetic), str(work))
    progress = Progress(Console(file=io.StringIO(), width=200))
    return Generated(images_of(synthetic), GROUPS, *folders, config, progress)


@pytest.mark.slow
def test_an_audit_goes_on_where_it_was_cut_off(
    ray_local, room, full, synthetic, tmp_path, monkeypatch
):
    asked = generated(room, full, synthetic, tmp_path)
    pack = without._pack(asked, KNOBS)
    assert [job.name for job in pack.jobs] == ["without-0", "without-2", "without-3"]
    without._unlearnt(asked, pack, KNOBS)
    first = without._compared(asked, pack, KNOBS)
    assert (tmp_path / "parts" / "00000.parquet").is_file()
    called, real = [], without.on_worker

    def on_worker(function, *given, **options):
        called.append(function.__name__)
        return real(function, *given, **options)

    monkeypatch.setattr(without, "on_worker", on_worker)
    facts = run_audit(asked)
    assert called == ["compare"], "no model is trained again"
    assert [file.name for file in tmp_path.iterdir()] == ["attribution.parquet"]
    table = read_table(str(tmp_path))
    assert table["id"].to_pylist() == asked.images["id"].to_pylist()
    scores = np.array(table["scores"].to_pylist(), float)
    np.testing.assert_array_equal(scores.astype(np.float32), first)
    top = [int(np.nanargmax(row)) for row in scores]
    assert table["top"].to_pylist() == top
    assert facts["rows"] == 8 and facts["method"] == "guda"
    assert set(facts["losses"]) == {"pullover/grass", "coat/grass", "coat/gravel"}
    asked_for = np.repeat(range(4), 2)
    counts = {(a, t): n for a, row in facts["asked"].items() for t, n in row.items()}
    for g in range(4):
        for other in range(4):
            seen = sum(a == g and t == other for a, t in zip(asked_for, top, strict=True))
            assert counts[GROUPS.name(g), GROUPS.name(other)] == seen
    assert facts["own"] == pytest.approx(np.mean(asked_for == np.array(top)))
    assert "of the images owe most to the group asked for" in asked.progress.console.file.getvalue()


def test_some_images_of_each_group_are_audited(room, full, synthetic, tmp_path):
    from raysynth.audit.stage import _some

    asked = generated(room, full, synthetic, tmp_path)
    assert _some(asked, 1).images["id"].to_pylist() == [f"g{g}-0" for g in range(4)]
    assert _some(asked, None) is asked and _some(asked, 9).images.num_rows == 8


SHARED = ["generator=shared", "audit.method=guda"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["audit.method=guda"], r"generator=clustered_dreambooth has a model for each group"),
        (["audit.method=guda", "generator=vanilla"], r"generator=vanilla trains no model"),
        ([*SHARED, "finetune.per=attribute"], r"finetune\.per=attribute, and a model that knows"),
        ([*SHARED, "finetune.experts=2"], r"got finetune\.experts=2"),
        (
            ["audit.method=guda", "generator=auto", "candidates=[shared, lora]"],
            r"generator=lora has a model for each group.*candidates=\[shared, edit\]",
        ),
        (["selection.leak=top1"], r"leak=top1: audit\.method=none.*Fix: audit\.method=guda"),
        ([*SHARED, "selection.leak=top1"], r"images_per_group=50 of synthesis\..*=null"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_ray(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_configuration(load_config(None, settings))


def test_prompts_without_the_attribute_are_refused():
    template = "prompts.template='a photo of a {token} {label}'"
    with pytest.raises(ConfigError, match=r"\{attribute\} is missing"):  # the generator's
        load_config(None, [*SHARED, template])
    config = load_config(None, SHARED)
    plain = config.prompts.model_copy(update={"template": "a {token} {label}"})
    with pytest.raises(ConfigError, match=r"has no \{attribute\}, so audit\.method=guda"):
        check(config.model_copy(update={"prompts": plain}))


@pytest.mark.parametrize(
    ("counts", "per", "message"),
    [
        ([90, 3, 90, 90], "auto", r"min_images=8, so there is a model for each attribute"),
        ([90, 3, 3, 90], "class", r"model 'class-0' is trained on pullover/grass alone"),
    ],
)
def test_groups_that_no_model_tells_apart_are_refused(counts, per, message):
    config = load_config(None, [*SHARED, f"finetune.per={per}"])
    with pytest.raises(ConfigError, match=message):
        check_groups(config, GROUPS, np.array(counts))
    check_groups(config, GROUPS, np.array([90, 9, 9, 90]))


def test_who_is_kept_hangs_on_the_audit_where_it_decides_alone():
    def stages(*settings):
        config = load_config(None, ["generator=shared", *settings])
        return {node.name: node for node in nodes_of(config)}

    none, some = stages(), stages("audit.method=guda")
    assert "audit" not in none and none["selection"].digest == some["selection"].digest
    whole = ["audit.method=guda", "audit.images_per_group=null"]
    heeded = stages(*whole, "selection.leak=top1")
    assert "audit" in heeded["selection"].upstream and "audit" not in some["selection"].upstream
    assert heeded["selection"].digest != none["selection"].digest
    longer = stages("audit.method={name: guda, steps: 9}", whole[1], "selection.leak=top1")
    assert longer["selection"].digest != heeded["selection"].digest
    assert some["audit"].digest != stages(*whole)["audit"].digest


def test_a_plan_counts_trainings_and_looks():
    def hours(*settings):
        plan = plan_run(load_config(None, ["generator=shared", *settings]))
        return plan.gpu_hours.get("audit", 0.0), " ".join(plan.assumptions)

    assert hours() == (0.0, hours()[1])
    found, said = hours("audit.method=guda")
    assert "trains 4 models without a group, 60 steps each" in said
    assert "asks the UNet 5 x 20 times per audited image" in said
    few, _ = hours("audit.method={name: guda, timesteps: 10}")
    short, _ = hours("audit.method={name: guda, steps: 30}")
    looks, trainings = 2 * (found - few), 2 * (found - short)
    assert looks + trainings == pytest.approx(found) and min(looks, trainings) > 0
    double, _ = hours("audit.method=guda", "audit.images_per_group=100")
    assert double - found == pytest.approx(looks)


@pytest.mark.slow
def test_a_run_audits_its_images(tmp_path):
    config = miniature(
        tmp_path,
        *("generator=shared", "finetune.engine=lora", "finetune.per=all"),
        "audit.method={name: guda, steps: 2, timesteps: 2}",
        "audit.images_per_group=4",
    )
    run = run_pipeline(config, until="audit")
    facts = run.manifest()["stages"]["audit"]["facts"]
    assert facts["rows"] == 16 and len(facts["losses"]) == 4
    assert {sum(row.values()) for row in facts["asked"].values()} == {4}
    table = read_table(run.folder("audit"))
    assert table.num_rows == 16 and None not in table["scores"].to_pylist()[0]
    written = (tmp_path / "mini" / "audit" / "attribution.parquet").stat().st_mtime_ns
    run_pipeline(config, until="selection")
    assert (tmp_path / "mini" / "audit" / "attribution.parquet").stat().st_mtime_ns == written
