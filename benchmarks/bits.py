"""The miniature pipeline's outputs as hashes: the same before and after a change of the house.

    python benchmarks/bits.py /tmp/before.json              # on the version before
    python benchmarks/bits.py /tmp/after.json --against /tmp/before.json

Tables row by row, weights tensor by tensor, records as text; what tells of time is left out. Bits
are one machine's: both runs belong on the same one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import checkout  # noqa: F401
import pyarrow.parquet as pq

from raysynth.pipeline import run_pipeline
from tests.chaos.comparing import timeless, weights
from tests.test_pipeline import miniature

VARIANTS = {
    "clustered_dreambooth": ["classifier.mixtures=[ffr, usb]"],
    "auto": ["generator=auto", "candidates=[vanilla, dreambooth, shared, edit]"],
    "seldom": [
        "generator=lora",
        "finetune.accumulation=2",
        "finetune.prior_weight=1.0",
        "finetune.ema=0.9",
        "finetune.patience=1",
        "finetune.evaluate_steps=2",
        "synthesis.solver=unipc",
        "selection.per_cluster=true",
        "classifier.schedule=joint",
        "references.names=[jtt, group_dro, dfr_train, dfr_validation, self, subsampling]",
        "references.controls=[clip_balanced_head, base_classifier]",
    ],
}
"""Name -> settings; together they reach every generator, objective and kind of head."""
SAME = ["search.concurrent=1"]
"""Which of two trials ends first, a busy moment decides."""


def hashes(folder: Path) -> dict[str, str]:
    """Path below a run's folder -> hash of what its file holds."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if name.startswith(".") or not file.is_file():
            continue
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file).read()
            content = repr(table.select(timeless(table.column_names)).to_pylist()).encode()
        elif file.suffix == ".safetensors":
            content = weights(file)
        elif file.name in ("results.json", "adapters.json", "best.json", ".choice.json"):
            content = json.dumps(timeless(json.loads(file.read_bytes())), sort_keys=True).encode()
        else:
            continue
        found[name] = hashlib.sha256(content).hexdigest()[:16]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="hashes of another version")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    given = parser.parse_args()
    found = {}
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            run = run_pipeline(miniature(Path(folder), *SAME, *VARIANTS[name]))
            found |= {f"{name}/{k}": v for k, v in hashes(Path(run.root)).items()}
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} files")
    if given.against:
        before = json.loads(given.against.read_text())
        before = {k: v for k, v in before.items() if k.split("/")[0] in given.only}
        differ = [k for k in {*before, *found} if before.get(k) != found.get(k)]
        print(f"{len(differ)} of {len({*before, *found})} differ", *sorted(differ), sep="\n  ")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
