"""No change may rename what was made: stages' digests of every committed benchmark cell.

`python -m tests.test_digests` writes the file anew, where a change is meant to make things again.
"""

from __future__ import annotations

import json
from pathlib import Path

from raysynth.benchmark.cells import plan_cells
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.knobs import digest_of
from raysynth.pipeline import stage_digests

GOLDEN = Path(__file__).parent / "digests.json"
ROOT = Path(__file__).parent.parent
VARIANTS = (
    [],
    ["generator=auto"],
    ["generator=shared"],
    ["generator=edit", "finetune.per=class"],
    ["generator=vanilla"],
    ["classifier.backbone=clip"],
    ["references.controls=[]"],
    ["finetune.engine=full"],
    ["generator=auto", "classifier.backbone=clip", "search.head_real_shares=[1.0, 0.5]"],
)


def configurations() -> dict[str, Config]:
    """Name -> configuration of every cell of the committed benchmarks, and of some variants."""
    found = {" ".join(each) or "default": load_config(None, each) for each in VARIANTS}
    for file in sorted(ROOT.glob("configs/benchmarks/outfits*.yaml")):
        for cell in plan_cells(load_config(str(file))):
            found[f"{file.stem}: {cell.name}"] = cell.config
    return found


def short_digests() -> dict[str, str]:
    """Name -> one digest of a configuration's stages."""
    return {
        name: digest_of(stage_digests(config))[:12] for name, config in configurations().items()
    }


def test_the_stages_of_all_committed_cells_have_the_names_they_had():
    known = json.loads(GOLDEN.read_text())
    now = short_digests()
    assert len(known) > 800
    moved = [name for name in known if now.get(name) != known[name]]
    assert not moved, f"{len(moved)} of {len(known)} would be made again, e.g. {moved[:3]}"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(short_digests(), indent=0) + "\n")
