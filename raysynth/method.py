"""The method: its stages in the order of the paper (Basu et al., arXiv 2511.08711)."""

from __future__ import annotations

from raysynth.audit.declared import AUDIT
from raysynth.classify.declared import CLASSIFICATION
from raysynth.clustering.declared import CLUSTERING
from raysynth.config.config import Config
from raysynth.datasets.declared import INGEST
from raysynth.fidelity.declared import FIDELITY
from raysynth.finetune.declared import FINETUNE
from raysynth.generators.recipe import AUTO, candidates
from raysynth.grouping.declared import GROUPING
from raysynth.references.declared import REFERENCES
from raysynth.report.declared import REPORT
from raysynth.search.declared import JUDGED_SEARCH, SEARCH
from raysynth.selection.declared import AUDITED_SELECTION, CHOICE, CHOSEN, SELECTION
from raysynth.stages.graph import Contents, Node, graph, no_contents, up_to
from raysynth.synthesis.declared import SYNTHESIS

METHOD = (
    INGEST,
    GROUPING,
    CLUSTERING,
    FINETUNE,
    SYNTHESIS,
    AUDIT,
    SELECTION,
    AUDITED_SELECTION,
    CHOICE,
    CHOSEN,
    FIDELITY,
    REFERENCES,
    SEARCH,
    JUDGED_SEARCH,
    CLASSIFICATION,
    REPORT,
)
FOLDERS = {stage.name: stage.folder for stage in METHOD}
"""Stage -> its folder below the run's."""


def nodes_of(
    config: Config, last: str | None = None, contents: Contents = no_contents
) -> list[Node]:
    """The stages of a run up to one of them, each with what it reads and its digest.

    `contents`: see `graph`; without it digests of data outside the package mean nothing.
    """
    # Several generators leave a variant of their stages each; one leaves the stage itself.
    several = config.generator == AUTO
    variants = {each.generator if several else "": each for each in candidates(config)}
    return up_to(graph(METHOD, config, variants, contents), last)
