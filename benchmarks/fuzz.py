"""Odd input by the hundred thousand: how does each end? Counts by target, every other ending named.

    python benchmarks/fuzz.py [--inputs 4000] [--seed 0] [--only WORD ...] [--out FOLDER]
        [--processes 2] [--write]

The targets, their inputs and what is done with them: tests/fuzz/. `--inputs` is per target; some
get a multiple of it. A batch of inputs is a function of its number alone and runs in a process of
its own; its counts are kept below `--out`, so that the same command goes on where it was stopped.
`--write` keeps the counts in benchmarks/results/fuzz.json. Exits 1 unless every input is accepted
or refused in words, within five seconds, in a process that lives on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import checkout  # noqa: F401

from tests.fuzz.harness import findings, run_batches, table
from tests.fuzz.targets import plan

RESULTS = Path(__file__).with_name("results")
SIZE = 500
"""Inputs of a batch."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--inputs", type=int, default=4000, help="inputs of each target")
    options.add_argument("--seed", type=int, default=0, help="number of the first batch")
    options.add_argument("--only", nargs="*", help="targets whose name holds one of these words")
    options.add_argument("--out", help="folder of the batches' counts")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--write", action="store_true", help="keep benchmarks/results/fuzz.json")
    asked = options.parse_args()
    out = Path(asked.out or tempfile.mkdtemp(prefix="fuzz-"))
    start = time.monotonic()
    batches = plan(asked.inputs, SIZE, asked.only, asked.seed)
    tallies = run_batches(batches, out, asked.processes)
    print(table(tallies), findings(tallies), sep="\n\n")
    print(f"\n{time.monotonic() - start:.0f} s for what was not in {out} yet")
    if asked.write:
        text = json.dumps({name: vars(tally) for name, tally in tallies.items()}, indent=1)
        (RESULTS / "fuzz.json").write_text(text + "\n")
    return int(any(tally.other or tally.slow for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
