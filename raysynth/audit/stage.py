"""The stage of the audit: scores of some or all generated images, and whom groups owe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from raysynth.audit.attribution import asked_and_top, own_share, top_of, write_attribution
from raysynth.audit.checks import check_groups
from raysynth.audit.method import Generated, Owed
from raysynth.audit.settings import AUDITS, AuditConfig
from raysynth.stages.stage import Work
from raysynth.storage.files import remove
from raysynth.strips import spaced
from raysynth.synthesis.shards import read_shards

COLUMNS = ("id", "group", "adapter", "prompt")
"""Of the synthetic table, of `Generated.images`."""


def run_audit(generated: Generated) -> dict[str, Any]:
    """Audit `audit.images_per_group` of each group of `generated`; writes attribution.parquet.

    What was trained and scored in an attempt that was cut off is not made again.

    Returns
    -------
    Facts: rows (images audited); `asked` {group name: {group name: images that owe it most}};
    `own`: share of the images whose own group that is; `method`; and what the audit says.
    """
    section = generated.config[AuditConfig]
    chosen = section.method
    looked_at = _some(generated, section.images_per_group)
    owed: Owed = AUDITS[chosen.name].score(looked_at, chosen.knobs(AUDITS))
    images, groups = looked_at.images, looked_at.groups
    write_attribution(images["id"], owed.scores, generated.work)
    table = asked_and_top(images["group"].to_numpy(), top_of(owed.scores), groups)
    for name in owed.scratch:
        remove(f"{generated.work}/{name}")
    own = own_share(table)
    generated.progress.say(f"  {100 * own:.1f} % of the images owe most to the group asked for")
    return {
        "rows": images.num_rows,
        "method": chosen.name,
        "asked": table,
        "own": own,
        **owed.facts,
    }


def _some(generated: Generated, each: int | None) -> Generated:
    """At most `each` images of every group, evenly spaced; None: all."""
    if each is None:
        return generated
    group = generated.images["group"].to_numpy()
    rows = [np.flatnonzero(group == g) for g in range(generated.groups.count)]
    taken = np.concatenate([own[spaced(len(own), each)] for own in rows if len(own)])
    return replace(generated, images=generated.images.take(np.sort(taken)))


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_audit`."""
    counts = np.asarray(work.inputs["ingest"].facts["counts"]["train"])
    check_groups(work.config, work.groups, counts)  # of groups that a method found, not before
    generated = Generated(
        images=read_shards(work.path("synthesis"), COLUMNS),
        groups=work.groups,
        real=work.path("ingest"),
        clusters=work.path("clustering"),
        adapters=work.path("finetune"),
        synthetic=work.path("synthesis"),
        work=work.folder,
        config=work.config,
        progress=work.progress,
    )
    return run_audit(generated)
