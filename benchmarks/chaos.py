"""Harm by the hundred, at random moments: what is lost, and what goes on? A table of faults.

    python benchmarks/chaos.py --folder FOLDER [--moments 20] [--only FAULT ...]
        [--stage STAGE ...] [--seed 0] [--limit 600] [--table] [--write]

A moment is a fault, a stage and the share of the stage's work after which harm is done, drawn from
its name and the seed; the same command is given until it comes to its end, and what the stage made
is compared with an undisturbed run's, row by row and tensor by tensor. Faults, their stages and how
work is followed: tests/chaos/. `--moments` is per fault, dealt to its stages in turn. Records are
appended to FOLDER/chaos.jsonl, one a line: the same command goes on where it was stopped, and tries
again where harm could not be done. `--table` runs nothing; `--write` puts the records into
benchmarks/results/chaos.jsonl. Full disks are mounted, which needs root. Exits 1 unless every
moment ended well: nothing lost, doubled or changed, and the command at its end.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import checkout  # noqa: F401

from tests.chaos.faults import FAULTS
from tests.chaos.harness import (
    RECORDS,
    Suite,
    findings,
    moment_of,
    planned,
    read_records,
    shortfall,
    table,
)
from tests.chaos.miniature import STAGES

RESULTS = Path(__file__).with_name("results") / RECORDS


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, required=True, help="of reference and records")
    options.add_argument("--moments", type=int, default=20, help="moments of each fault")
    options.add_argument("--only", nargs="*", choices=[*FAULTS], default=[*FAULTS])
    options.add_argument("--stage", nargs="*", choices=STAGES, default=STAGES)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--limit", type=float, default=600, help="seconds of one command")
    options.add_argument("--table", action="store_true", help="of the records; runs nothing")
    options.add_argument("--write", action="store_true", help=f"keep them in {RESULTS.name}")
    asked = options.parse_args()
    moments = planned(asked.moments, asked.seed, asked.only, asked.stage)
    path = asked.folder.resolve() / RECORDS
    done = {moment_of(record) for record in read_records(path) if not record.problem}
    with Suite(asked.folder.resolve(), asked.limit) as suite:
        for moment in moments if not asked.table else ():
            if moment not in done:
                record = suite.run(moment)
                print(json.dumps(asdict(record)), flush=True)
    records = [r for r in read_records(path) if r.fault in asked.only and r.stage in asked.stage]
    print(table(records), findings(records), sep="\n\n")
    if missing := shortfall(moments, records):
        print(f"\nmissing: {missing}")
    if asked.write:
        lines = [json.dumps(asdict(record)) for record in read_records(path)]
        RESULTS.write_text("".join(f"{line}\n" for line in lines))
    return int(not records or not all(record.well for record in records))


if __name__ == "__main__":
    sys.exit(main())
