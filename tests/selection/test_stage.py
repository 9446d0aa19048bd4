"""Selection against hand-worked scores: rules, quotas, copies, facts, refusals."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console

from raysynth.audit.attribution import write_attribution
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import Groups
from raysynth.progress import Progress
from raysynth.report.page import _selection_rule
from raysynth.selection.copies import copy_thresholds, duplicates
from raysynth.selection.settings import SelectionConfig
from raysynth.selection.stage import run_selection, select
from raysynth.storage.tables import read_table, write_table
from raysynth.synthesis.shards import ShardRecord, write_manifest

GROUPS = Groups(("a", "b"), ("x",), ("a", "b"), ("x",))


def candidates(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows (id, group, clip_label, clip_centroid[, cluster[, nearest_similarity]])."""
    filled = [(*row, *(0, 0.0)[len(row) - 4 :]) for row in rows]
    ids, group, label, centroid, cluster, similarity = zip(*filled, strict=True)
    return pa.table(
        {
            "id": list(ids),
            "group": pa.array(group, pa.int32()),
            "cluster": pa.array(cluster, pa.int32()),
            "clip_label": pa.array(label, pa.float32()),
            "clip_centroid": pa.array(centroid, pa.float32()),
            "nearest_similarity": pa.array(similarity, pa.float32()),
        }
    )


TABLE = candidates(
    [
        ("g1-0", 1, 0.1, 0.9),
        ("g0-0", 0, 0.8, 0.0),
        ("g0-1", 0, 0.2, 0.4),
        ("g0-2", 0, 0.5, 0.5),
        ("g0-3", 0, 0.0, 0.2),
        ("g1-1", 1, 0.3, 0.1),
    ]
)
NO_LIMITS = np.full(2, np.inf, np.float32)


def chosen(
    table: pa.Table, limits: np.ndarray = NO_LIMITS, seed: int = 0, **knobs: Any
) -> pa.Table:
    return select(table, limits, SelectionConfig(**knobs), GROUPS, seed)


def kept(*arguments: Any, **knobs: Any) -> list[str]:
    table = chosen(*arguments, **knobs)
    return table.filter(table["kept"])["id"].to_pylist()


def many(each: int, clusters: tuple[int, ...] = (1, 1)) -> pa.Table:
    """`each` candidates per group, dealt to the group's clusters in turn; scores fall."""
    return candidates(
        [
            (f"g{g}-{i:03d}", g, 1 - i / each, 1 - i / each, i % clusters[g])
            for g in (0, 1)
            for i in range(each)
        ]
    )


def test_scores_by_hand():
    half = chosen(TABLE)
    assert np.allclose(half["score"].to_numpy(), [0.5, 0.4, 0.3, 0.5, 0.1, 0.2])
    quarter = chosen(TABLE, alpha=0.25)
    assert np.allclose(quarter["score"].to_numpy(), [0.7, 0.2, 0.35, 0.5, 0.15, 0.15])
    assert half["id"].to_pylist() == TABLE["id"].to_pylist()


def test_the_best_of_each_group_and_as_many_in_each():
    # 75 % of 4 is 3, of 2 is 2 (1.5 rounds to even): both keep 2.
    assert kept(TABLE) == ["g1-0", "g0-0", "g0-2", "g1-1"]
    assert kept(TABLE, alpha=0.0) == ["g1-0", "g0-1", "g0-2", "g1-1"]
    # Half of 2 is 1: group 0, which could keep 2, keeps 1 too.
    assert kept(TABLE, keep=0.5) == ["g1-0", "g0-2"]


MARGINS = TABLE.append_column("dc_margin", pa.array([0, 1, 5, 2, 3, 9], pa.float32()))


def test_candidates_are_ordered_by_the_score_that_is_asked_for():
    by_margin = chosen(MARGINS, score="diffusion_classifier")
    assert by_margin["score"].to_pylist() == [0, 1, 5, 2, 3, 9]
    assert kept(MARGINS, score="diffusion_classifier", keep=0.5) == ["g0-1", "g1-1"]
    clip = np.array([0.5, 0.4, 0.3, 0.5, 0.1, 0.2])
    margin = np.array([0, 1, 5, 2, 3, 9])
    both = (clip - clip.mean()) / clip.std() + (margin - margin.mean()) / margin.std()
    assert np.allclose(chosen(MARGINS, score="both")["score"].to_numpy(), both, atol=1e-5)
    alike = MARGINS.set_column(6, "dc_margin", pa.array([7] * 6, pa.float32()))
    assert kept(alike, score="both") == kept(TABLE), "margins that are all alike say nothing"
    assert _selection_rule(SelectionConfig(score="both")) == (
        "the best 75 % by CLIP score and the Diffusion Classifier's margin"
    )


def test_margins_are_asked_of_who_gives_them():
    with pytest.raises(DataError, match=r"no column dc_margin"):
        chosen(TABLE, score="both")
    nothing = MARGINS.set_column(6, "dc_margin", pa.array([float("nan")] * 6, pa.float32()))
    with pytest.raises(DataError, match=r"dc_margin of 6 candidate"):
        chosen(nothing, score="diffusion_classifier")
    with pytest.raises(ConfigError, match=r"which is no cosine.* Fix: selection\.score=clip"):
        load_config(
            None, ["selection.rule=threshold", "selection.threshold=0.5", "selection.score=both"]
        )


def test_equal_scores_are_decided_by_id():
    table = candidates([(f"g{g}-{i}", g, 0.5, 0.5) for g in (1, 0) for i in (3, 1, 2, 0)])
    assert sorted(kept(table, keep=0.5)) == ["g0-0", "g0-1", "g1-0", "g1-1"]


def test_a_threshold_keeps_what_reaches_it():
    assert kept(TABLE, rule="threshold", threshold=0.2) == ["g1-0", "g0-0", "g0-2", "g1-1"]
    assert kept(TABLE, rule="threshold", threshold=0.45) == ["g1-0", "g0-2"]
    message = r"selection\.threshold=0\.6: .*group b/x scores 0\.5000; .*Fix: .*=0\.50 or lower"
    above = TABLE.set_column(3, "clip_label", pa.array([0.1, 1.8, 0.2, 0.5, 0, 0.3], pa.float32()))
    with pytest.raises(DataError, match=message):
        kept(above, rule="threshold", threshold=0.6)


def test_random_ones_do_not_follow_the_score_and_off_keeps_all():
    table = many(200)
    drawn = kept(table, rule="random", keep=0.25)
    assert Counter(name[:2] for name in drawn) == {"g0": 50, "g1": 50}
    assert drawn == kept(table, rule="random", keep=0.25) != kept(table, keep=0.25)
    assert drawn != kept(table, rule="random", keep=0.25, seed=1)
    ranks = [int(name[3:]) for name in drawn]
    assert 70 < np.mean(ranks) < 130  # the best quarter's is 24.5
    assert set(drawn) < set(kept(table, rule="random", keep=0.5)), "a larger draw holds the smaller"
    mixed = table.take(np.random.default_rng(0).permutation(400))
    assert sorted(kept(mixed, rule="random", keep=0.25)) == drawn, "the order does not matter"
    assert kept(table, rule="off") == table["id"].to_pylist()


def test_clusters_share_a_groups_images_equally():
    # Group 0: cluster 0 holds the 90 best candidates, cluster 1 the 30 worst.
    rows = [(f"g0-{i:03d}", 0, 1 - i / 120, 0.5, int(i >= 90)) for i in range(120)]
    table = candidates([*rows, *((f"g1-{i:03d}", 1, 0.5, 0.5, 0) for i in range(120))])
    clusters = table["cluster"].to_numpy()

    def shares(**knobs: Any) -> list[int]:
        mask = chosen(table, **knobs)["kept"].to_numpy() & (table["group"].to_numpy() == 0)
        return np.bincount(clusters[mask], minlength=2).tolist()

    assert shares(keep=0.5) == [60, 0]
    assert shares(keep=0.5, per_cluster=True) == [30, 30]
    assert shares(keep=0.75, per_cluster=True) == [60, 30]  # what a cluster lacks others give
    best = kept(table, keep=0.25, per_cluster=True)
    assert [name for name in best if name < "g1"] == [
        *(f"g0-{i:03d}" for i in range(15)),
        *(f"g0-{i:03d}" for i in range(90, 105)),
    ]
    assert shares(rule="random", keep=0.25, per_cluster=True) == [15, 15]


def test_copies_are_marked_and_never_kept():
    table = candidates(
        [(f"g{g}-{i}", g, 1 - i / 9, 1, 0, 0.95 - 0.1 * i) for g in (0, 1) for i in range(8)]
    )
    limits = np.array([0.7, np.inf], np.float32)
    for rule in ("quantile", "off", "random"):
        found = chosen(table, limits, rule=rule)
        assert found.filter(found["copy"])["id"].to_pylist() == ["g0-0", "g0-1", "g0-2"]
        assert not pc.any(pc.and_(found["copy"], found["kept"])).as_py()
        left = 4 if rule != "off" else 5  # 75 % of the 5 that are no copies, rounded
        assert Counter(name[:2] for name in kept(table, limits, rule=rule)) == {
            "g0": left,
            "g1": left,
        }
    limits = np.array([0.1, np.inf], np.float32)
    with pytest.raises(
        DataError, match=r"all 8 candidates of group a/x are copies.*finetune\.steps"
    ):
        kept(table, limits)


def neighbours(similarities: dict[int, list[float]]) -> pa.Table:
    rows = [(g, s) for g, values in similarities.items() for s in values]
    group, similarity = zip(*rows, strict=True)
    return pa.table(
        {"group": pa.array(group, pa.int32()), "similarity": pa.array(similarity, pa.float32())}
    )


def test_thresholds_come_from_validation_images():
    table = neighbours({0: np.linspace(0, 1, 101).tolist(), 1: [0.3, 0.5]})
    auto = copy_thresholds(SelectionConfig(), table, GROUPS)
    assert np.allclose(auto, [0.99, 0.498])
    fixed = copy_thresholds(SelectionConfig(copy_threshold=0.8), table, GROUPS)
    assert np.allclose(fixed, 0.8)
    assert np.isinf(copy_thresholds(SelectionConfig(copy_threshold=None), table, GROUPS)).all()
    lacking = neighbours({0: [0.5]})
    with pytest.raises(DataError, match=r"copy_threshold=auto: no validation image .*b/x.*Fix"):
        copy_thresholds(SelectionConfig(), lacking, GROUPS)
    copy_thresholds(SelectionConfig(copy_threshold=0.8), lacking, GROUPS)


def test_facts_tell_groups_clusters_and_thresholds(tmp_path: Path):
    table = candidates(
        [
            (f"g{g}-{i}", g, 1 - i / 20, 1 - i / 20, i % 2, 0.9 if i == g == 0 else 0.1)
            for g in (0, 1)
            for i in range(8)
        ]
    )
    clusters, synthetic, work = (str(tmp_path / name) for name in ("clusters", "synthetic", "work"))
    write_table(neighbours({0: [0.2, 0.4], 1: [0.95]}), f"{clusters}/neighbours.parquet")
    write_table(table, f"{synthetic}/all.parquet")
    write_manifest(synthetic, [ShardRecord("all.parquet", 0, 16, "")], {})
    facts = run_selection(Config(), clusters, synthetic, GROUPS, work, Progress())
    assert facts == {
        "rows": 16,
        "kept": 10,
        "kept_per_group": 5,
        "threshold": {"a/x": 0.75, "b/x": 0.8},
        "kept_per_cluster": {"a/x": {"0": 2, "1": 3}, "b/x": {"0": 3, "1": 2}},
        "copies": {"a/x": {"0": 1, "1": 0}, "b/x": {"0": 0, "1": 0}},
        "copy_threshold": {"a/x": 0.398, "b/x": 0.95},
    }
    written = read_table(work)
    assert written.column_names == ["id", "group", "score", "copy", "kept"]
    assert written.filter(written["copy"])["id"].to_pylist() == ["g0-0"]


def test_facts_tell_how_often_a_judge_agrees(tmp_path: Path):
    judged = MARGINS.append_column("dc_group", pa.array([1, 0, 0, 1, 0, 0], pa.int32()))
    clusters, synthetic, work = (str(tmp_path / name) for name in ("clusters", "synthetic", "work"))
    write_table(neighbours({0: [0.2], 1: [0.2]}), f"{clusters}/neighbours.parquet")
    write_table(judged, f"{synthetic}/all.parquet")
    write_manifest(synthetic, [ShardRecord("all.parquet", 0, 6, "")], {})
    scorers = "synthesis.scorers=[clip, copies, diffusion_classifier]"
    best = {"clip": ["g1-0", "g0-2"], "diffusion_classifier": ["g0-1", "g1-1"]}
    for score, names in best.items():
        config = load_config(None, [scorers, f"selection.score={score}", "selection.keep=0.4"])
        facts = run_selection(config, clusters, synthetic, GROUPS, work, Progress())
        assert facts["dc_agreement"] == {"a/x": 0.75, "b/x": 0.5}
        written = read_table(work)
        assert written.filter(written["kept"])["id"].to_pylist() == names


def test_validation_images_that_stand_in_training_do_not_calibrate(tmp_path: Path):
    """With them the threshold would be 1, and no image a copy."""
    new = np.linspace(0.2, 0.4, 101).tolist()
    table = neighbours({0: new, 1: [*new, 1.0, 0.99999]})
    assert np.allclose(copy_thresholds(SelectionConfig(), table, GROUPS), 0.398)
    assert duplicates(SelectionConfig(), table, GROUPS).tolist() == [0, 2]
    all_of_a_group = neighbours({0: new, 1: [1.0, 1.0]})
    assert np.allclose(copy_thresholds(SelectionConfig(), all_of_a_group, GROUPS), 0.398)
    everywhere = neighbours({0: [1.0], 1: [1.0, 1.0]})
    assert np.allclose(copy_thresholds(SelectionConfig(), everywhere, GROUPS), 0.999)
    # Fewer than lie beyond the quantile anyway: the threshold of before, to the last bit.
    few = neighbours({0: [*new, *new, 1.0], 1: new})
    by_hand = np.quantile(few["similarity"].to_numpy()[:203], 0.99).astype(np.float32)
    assert copy_thresholds(SelectionConfig(), few, GROUPS)[0] == by_hand
    clusters, synthetic, work = (str(tmp_path / name) for name in ("clusters", "synthetic", "work"))
    write_table(table, f"{clusters}/neighbours.parquet")
    write_table(many(8), f"{synthetic}/all.parquet")
    write_manifest(synthetic, [ShardRecord("all.parquet", 0, 16, "")], {})
    console = Console(file=io.StringIO(), width=500)
    facts = run_selection(Config(), clusters, synthetic, GROUPS, work, Progress(console))
    assert facts["validation_in_training"] == {"a/x": 0, "b/x": 2}
    assert "2 validation image(s) stand in training too (b/x: 2)" in console.file.getvalue()
    broken = neighbours({0: [0.5], 1: [float("nan")]})
    with pytest.raises(DataError, match=r"similarity of 1 validation image.*no number.*Fix"):
        copy_thresholds(SelectionConfig(), broken, GROUPS)


def test_groups_whose_names_are_equal_keep_their_facts(tmp_path: Path):
    groups = Groups(("a", "a/b"), ("b/c", "c"), ("a", "a/b"), ("b/c", "c"))
    table = candidates([(f"g{g}-{i}", g, 0.1 * g, 0.1 * g) for g in range(4) for i in range(2)])
    clusters, synthetic, work = (str(tmp_path / name) for name in ("clusters", "synthetic", "work"))
    write_table(neighbours({g: [0.1 * g] for g in range(4)}), f"{clusters}/neighbours.parquet")
    write_table(table, f"{synthetic}/all.parquet")
    write_manifest(synthetic, [ShardRecord("all.parquet", 0, 8, "")], {})
    facts = run_selection(Config(), clusters, synthetic, groups, work, Progress())
    assert facts["threshold"] == {
        "0: a/b/c": 0.0,
        "1: a/c": 0.1,
        "2: a/b/b/c": 0.2,
        "3: a/b/c": 0.3,
    }
    assert list(facts["copy_threshold"].values()) == [0.0, 0.1, 0.2, 0.3]
    assert all(len(facts[key]) == 4 for key in ("copies", "kept_per_cluster"))


def _with(name: str, column: pa.Array) -> pa.Table:
    return TABLE.set_column(TABLE.column_names.index(name), name, column)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_with("clip_label", pa.array([0.1, float("nan"), 0.2, 0.5, 0, 0.3], pa.float32())),
         r"clip_label of 1 candidate\(s\) of group\(s\) a/x is no number"),
        (_with("nearest_similarity", pa.array([float("inf")] * 6, pa.float32())),
         r"nearest_similarity of 6 candidate\(s\) of group\(s\) a/x, b/x is no number"),
        (_with("group", pa.array([1, 0, 0, 0, 2, -1], pa.int32())), r"group\(s\) \[-1, 2\]"),
        (_with("group", pa.array([1, 0, 0, 0, 2**40, 1])), r"column group .* got int64"),
        (_with("group", pa.array([1, 0, 0, 0, None, 1], pa.int32())), r"got 1 empty cell"),
        (_with("clip_label", pa.array(["a"] * 6)), r"column clip_label .* got string"),
        (_with("id", pa.array([[1]] * 6)), r"column id .* got list"),
        (_with("id", pa.array(["a"] * 6)), r"5 id\(s\) .* more than once"),
        (TABLE.drop_columns(["cluster"]), r"no column cluster; got id, group"),
        (pa.table({}), r"no column id, .*; got none"),
    ],
)  # fmt: skip
def test_candidates_that_are_no_synthetic_table_are_refused(table, message):
    with pytest.raises(DataError, match=f"{message}.*Fix"):
        chosen(table)


def test_a_group_without_candidates_is_refused():
    with pytest.raises(DataError, match=r"no synthetic image of group b/x.*Fix"):
        chosen(TABLE.filter(pc.equal(TABLE["group"], 0)))


@pytest.mark.parametrize(
    "overrides",
    [["selection.rule=threshold"], ["selection.threshold=0.5"], ["selection.copy_threshold=often"]],
)
def test_rules_that_make_no_sense_are_refused(overrides):
    with pytest.raises(ConfigError, match="selection"):
        load_config(None, overrides)


def test_a_rule_and_a_quota_from_outside(add_part):
    """The worst of each group, and of each group all that the rule takes."""
    add_part(
        "raysynth.selection.rules",
        "worst",
        """
        from raysynth.selection.rule import Rule

        PART = Rule("Worst", "a test", lambda config: "the worst", lambda scored: scored.score,
                    share=lambda config: config.keep)
        """,
    )
    add_part(
        "raysynth.selection.quotas",
        "each",
        """
        from raysynth.selection.rule import Quota

        PART = Quota("Each its own", "a test", list)
        """,
    )
    assert kept(TABLE, rule="worst", keep=0.5, alpha=1.0) == ["g1-0", "g0-3"]
    assert kept(TABLE, rule="worst", keep=1.0, quota="each") == TABLE["id"].to_pylist()
    assert _selection_rule(SelectionConfig(rule="worst")) == "the worst"
    with pytest.raises(ConfigError, match="off, quantile, random, threshold, worst"):
        load_config(None, ["selection.rule=best"])


def test_what_owes_another_group_most_is_dropped(tmp_path: Path):
    clusters, synthetic, audit, work = (
        str(tmp_path / name) for name in ("clusters", "synthetic", "audit", "work")
    )
    write_table(neighbours({0: [0.2], 1: [0.2]}), f"{clusters}/neighbours.parquet")
    write_table(TABLE, f"{synthetic}/all.parquet")
    write_manifest(synthetic, [ShardRecord("all.parquet", 0, 6, "")], {})
    group = TABLE["group"].to_numpy()
    best = kept(TABLE, keep=0.4)[1]  # of group 0
    scores = np.eye(2)[np.where(np.array(TABLE["id"].to_pylist()) == best, 1 - group, group)]
    write_attribution(TABLE["id"], scores, audit)
    whole = ["audit.method=guda", "audit.images_per_group=null", "selection.keep=0.4"]
    config = load_config(None, ["generator=shared", *whole, "selection.leak=top1"])
    given = (clusters, synthetic, GROUPS, work)
    facts = run_selection(config, *given, Progress(), audit)
    assert facts["leaks"] == {"a/x": 1, "b/x": 0}
    written = read_table(work)
    names = written.filter(written["kept"])["id"].to_pylist()
    assert len(names) == 2 and best not in names
    unheeded = load_config(None, ["generator=shared", *whole])
    assert "leaks" not in run_selection(unheeded, *given, Progress())
    assert best in read_table(work).filter(read_table(work)["kept"])["id"].to_pylist()
    write_attribution(TABLE["id"], np.eye(2)[np.ones(6, int)], audit)
    with pytest.raises(DataError, match=r"leak=top1: all 4 candidates of group a/x .*Fix"):
        run_selection(config, *given, Progress(), audit)
