"""Who is kept: no copies, then the best candidates of every group, as many in each group.

Basu et al. (arXiv 2511.08711): CLIP-Score = alpha * CLIP-Label + (1 - alpha) * CLIP-Centroid, the
top 75 % are kept; their ablation keeps random ones. The cosines enter raw, as in the paper. The
absolute threshold, the quotas per cluster and the rejection of copies, and of images that owe most
to another group (`selection.leak`), are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.audit.attribution import read_leaks
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.metrics import IMAGES_ACCEPTED, put
from raysynth.progress import Progress
from raysynth.scoring.columns import scores_of
from raysynth.selection.checks import NEAREST
from raysynth.selection.copies import (
    copy_thresholds,
    duplicates,
    is_copy,
    per_cluster,
    read_neighbours,
    said_of_duplicates,
    spoken_limits,
)
from raysynth.selection.rule import QUOTAS, RULES, SCORES, Scored
from raysynth.selection.settings import SelectionConfig
from raysynth.stages.stage import Work
from raysynth.storage.tables import write_table
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.shards import read_shards

SELECTION = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.int32()),
        ("score", pa.float32()),
        ("copy", pa.bool_()),
        ("kept", pa.bool_()),
    ]
)
JUDGED = "dc_group"
"""Column of the group that the Diffusion Classifier sees, where that is a scorer."""
AGAIN = "Fix: delete the synthesis stage's folder of the run and run again"


def run_selection(
    config: Sections,
    clusters: str,
    synthetic: str,
    groups: Groups,
    work: str,
    progress: Progress,
    audit: str = "",
) -> dict[str, Any]:
    """Score and select the candidates of a synthetic table; writes work/selection.parquet.

    Parameters
    ----------
    clusters, synthetic, audit : folders or URIs of the stages; "": no audit is heeded.

    Returns
    -------
    Facts: rows, kept (in all), kept_per_group; by group name: threshold (lowest score kept),
    copy_threshold (cosine, None without), and where there are any: validation_in_training
    (`copies.duplicates`), dc_agreement (share of candidates that the Diffusion Classifier sees as
    their group), leaks (owing another one most); by name and cluster: kept_per_cluster, copies.
    """
    progress.update("candidates selected")
    settings = config[SelectionConfig]
    looked = JUDGED in scores_of([one.name for one in config[SynthesisConfig].scorers]).names
    candidates = read_shards(synthetic, [*read_of(settings), *([JUDGED] if looked else [])])
    neighbours = read_neighbours(clusters)
    limits = copy_thresholds(settings, neighbours, groups)
    twice = duplicates(settings, neighbours, groups)
    leaks = read_leaks(audit, candidates) if audit else None
    table = select(candidates, limits, settings, groups, config.seed, leaks)
    write_table(table, f"{work}/selection.parquet")
    facts = _facts(table, candidates["cluster"].to_numpy(), limits, groups)
    facts |= {"dc_agreement": _agreement(candidates, groups)} if looked else {}
    if leaks is not None:
        facts["leaks"] = _of_groups(candidates, leaks, groups)
    if twice.any():
        facts["validation_in_training"] = dict(zip(groups.names, twice.tolist(), strict=True))
    _say(facts, progress)
    return facts


def _of_groups(candidates: pa.Table, chosen: NDArray[np.bool_], groups: Groups) -> dict[str, int]:
    """Name of each group -> those of its candidates that are `chosen`, [N]."""
    counts = np.bincount(candidates["group"].to_numpy()[chosen], minlength=groups.count)
    return dict(zip(groups.names, counts.tolist(), strict=True))


def _say(facts: dict[str, Any], progress: Progress) -> None:
    """What is rejected, and what spoils the measure of copies."""
    put(IMAGES_ACCEPTED, facts["kept"])
    share = 100 * facts["kept"] / max(facts["rows"], 1)
    progress.say(
        f"  {facts['kept']:,} of {facts['rows']:,} images kept ({share:.0f} %), "
        f"{facts['kept_per_group']:,} or more of each group"
    )
    if "validation_in_training" in facts:
        progress.say(f"  {said_of_duplicates(facts['validation_in_training'])}")
    if copies := sum(sum(of.values()) for of in facts["copies"].values()):
        progress.say(f"  {copies:,} of {facts['rows']:,} candidates are copies and were rejected")
    if leaks := sum(facts.get("leaks", {}).values()):
        progress.say(f"  {leaks:,} of {facts['rows']:,} candidates owe another group most")


def read_of(config: SelectionConfig) -> dict[str, pa.DataType]:
    """What is read of the synthetic table, and as what: names, the score's numbers, copies."""
    named = {"id": pa.string(), "group": pa.int32(), "cluster": pa.int32()}
    return named | dict.fromkeys((*SCORES[config.score].columns, NEAREST), pa.float32())


def select(
    candidates: pa.Table,
    limits: NDArray[np.float32],
    config: SelectionConfig,
    groups: Groups,
    seed: int,
    leaks: NDArray[np.bool_] | None = None,
) -> pa.Table:
    """The selection table of candidates, in their order.

    Copies leave first. Of the others every group could keep what the rule says; how many of these
    it keeps is the quota's. Equal scores are decided by id.

    Parameters
    ----------
    candidates : the columns `read_of` of the synthetic table.
    limits : [G] cosine to the nearest training image from which an image is a copy.
    seed : of the run; with the image's id it decides what rules keep at random.
    leaks : [N] candidates that leave with the copies.

    Raises
    ------
    DataError
        A group has no candidate, or none that is kept; or they are no synthetic table (`_checked`).
    """
    candidates, by = _checked(candidates, groups, config), SCORES[config.score]
    group = candidates["group"].to_numpy()
    score = by.of({name: candidates[name].to_numpy() for name in by.columns}, config)
    copy = is_copy(candidates[NEAREST].to_numpy(), group, limits)
    ids = candidates["id"].to_numpy(zero_copy_only=False)
    rule, scored = RULES[config.rule], Scored(score, ids, seed)
    order = np.lexsort((ids, rule.order(scored)))
    gone = Gone(copy, np.zeros_like(copy) if leaks is None else leaks)
    may = gone.left & rule.may(scored, config)
    sizes = QUOTAS[config.quota].sizes(_could(config, group, score, gone, may, groups))
    cluster = candidates["cluster"].to_numpy() if config.per_cluster else np.zeros_like(group)
    kept = np.zeros(len(group), bool)
    for g in range(groups.count):
        kept[_first(order[(group == g)[order] & may[order]], cluster, sizes[g])] = True
    return pa.table([ids, candidates["group"], score, copy, kept], schema=SELECTION)


def _checked(candidates: pa.Table, groups: Groups, config: SelectionConfig) -> pa.Table:
    """The columns that are read, in their types; refuses what would be kept by accident."""
    read = read_of(config)
    missing = [name for name in read if name not in candidates.column_names]
    if missing:
        raise DataError(
            f"selection: the synthetic table has no column {', '.join(missing)}; got "
            f"{', '.join(candidates.column_names) or 'none'}. {AGAIN}"
        )
    table = pa.table({name: _cast(candidates[name], name, kind) for name, kind in read.items()})
    group = table["group"].to_numpy()
    if outside := sorted({int(g) for g in group if not 0 <= g < groups.count}):
        raise DataError(
            f"selection: the synthetic table has images of group(s) {outside[:5]}; expected 0 to "
            f"{groups.count - 1}. {AGAIN}"
        )
    for name in (*SCORES[config.score].columns, NEAREST):
        broken = ~np.isfinite(table[name].to_numpy())
        if broken.any():
            raise DataError(
                f"selection: {name} of {broken.sum()} candidate(s) of group(s) "
                f"{', '.join(groups.names[g] for g in np.unique(group[broken]))} is no number (NaN "
                f"or infinite); expected finite ones. {AGAIN}; where it comes again, "
                "base.dtype=float32"
            )
    twice = table.num_rows - len(table["id"].unique())
    if twice:
        raise DataError(
            f"selection: {twice} id(s) of the synthetic table occur more than once; expected each "
            f"once. {AGAIN}"
        )
    return table


def _cast(column: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A column as `kind`, without empty cells."""
    alike = {
        pa.string(): pa.types.is_string(column.type) or pa.types.is_large_string(column.type),
        pa.int32(): pa.types.is_integer(column.type),
        pa.float32(): pa.types.is_floating(column.type),
    }
    try:
        found = column.cast(kind) if alike[kind] else None
    except pa.ArrowInvalid:  # a number beyond 32 bits
        found = None
    if found is None or found.null_count:
        got = column.type if found is None else f"{found.null_count} empty cell(s)"
        raise DataError(
            f"selection: column {name} of the synthetic table: got {got}; expected {kind} in every "
            f"row. {AGAIN}"
        )
    return found


def kept_of(count: int, keep: float) -> int:
    """Images kept of `count`: the share, rounded, at least one."""
    return max(1, round(count * keep))


def _first(rows: NDArray[Any], cluster: NDArray[Any], size: int) -> NDArray[Any]:
    """The first `size` of ordered rows, in turns between their clusters.

    A cluster that runs out leaves its share to the others.
    """
    turn = np.empty(len(rows), np.int64)
    for k in np.unique(cluster[rows]):
        own = cluster[rows] == k
        turn[own] = np.arange(own.sum())
    return rows[np.argsort(turn, kind="stable")[:size]]


@dataclass(frozen=True)
class Gone:
    """Candidates, [N] each, that no rule is asked about: copies, and those that owe others."""

    copy: NDArray[np.bool_]
    leaks: NDArray[np.bool_]

    @property
    def left(self) -> NDArray[np.bool_]:
        """[N] all others."""
        found: NDArray[np.bool_] = ~self.copy & ~self.leaks
        return found

    def of(self, rows: NDArray[np.bool_]) -> Gone:
        """Some of them."""
        return Gone(self.copy[rows], self.leaks[rows])


def _could(
    config: SelectionConfig,
    group: NDArray[Any],
    score: NDArray[np.float32],
    gone: Gone,
    may: NDArray[np.bool_],
    groups: Groups,
) -> list[int]:
    """Images that each group could keep; refuses a group without any."""
    for g in range(groups.count):
        own = group == g
        if not may[own].any():
            raise DataError(_refusal(groups.name(g), config, score[own], gone.of(own)))
    share = RULES[config.rule].share(config)
    return [kept_of(int(may[group == g].sum()), share) for g in range(groups.count)]


def _refusal(name: str, config: SelectionConfig, score: NDArray[np.float32], gone: Gone) -> str:
    """Why nothing of a group can be kept, and what to do."""
    if not len(score):
        return (
            f"selection: no synthetic image of group {name}; expected candidates of every group. "
            "Fix: run the synthesis stage again"
        )
    if gone.copy.all():
        return (
            f"selection.copy_threshold={config.copy_threshold}: all {len(score)} candidates of "
            f"group {name} are copies of training images; expected one at least that is not. Fix: "
            "train less (finetune.steps), or have the aligned group's model speak for small groups "
            "(finetune.min_images)"
        )
    if not gone.left.any():
        return (
            f"selection.leak={config.leak}: all {len(score)} candidates of group {name} that are "
            "no copies owe another group most; expected one at least that owes its own. Fix: "
            "selection.leak=none, or more images of the group to train on"
        )
    return RULES[config.rule].none(name, float(score[gone.left].max()), config)


def _agreement(candidates: pa.Table, groups: Groups) -> dict[str, float]:
    group, seen = (candidates[name].to_numpy() for name in ("group", JUDGED))
    return {
        name: round(float((seen[group == g] == g).mean()), 4) for g, name in enumerate(groups.names)
    }


def _facts(
    table: pa.Table, cluster: NDArray[Any], limits: NDArray[np.float32], groups: Groups
) -> dict[str, Any]:
    group, score = table["group"].to_numpy(), table["score"].to_numpy()
    kept, copy = table["kept"].to_numpy(), table["copy"].to_numpy()
    return {
        "rows": table.num_rows,
        "kept": int(kept.sum()),
        "kept_per_group": int(np.bincount(group[kept], minlength=groups.count).min()),
        "threshold": {
            name: round(float(score[kept & (group == g)].min()), 4)
            for g, name in enumerate(groups.names)
        },
        "kept_per_cluster": per_cluster(kept, group, cluster, groups),
        "copies": per_cluster(copy, group, cluster, groups),
        "copy_threshold": spoken_limits(limits, groups),
    }


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_selection`."""
    clusters, synthetic = work.path("clustering"), work.path("synthesis")
    audit = work.path("audit") if work.config[SelectionConfig].leak != "none" else ""
    given = (work.groups, work.folder, work.progress, audit)
    return run_selection(work.config, clusters, synthetic, *given)
