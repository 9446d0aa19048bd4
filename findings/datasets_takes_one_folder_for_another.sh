#!/usr/bin/env bash
# `load_dataset(FOLDER)` gives the rows of another folder: where a card has `configs`, the cache is
# named by the folder's last name and the patterns of files alone, not by where it is or what is in
# it. Without `configs` the files' paths and times are part of the name.
#
# Version: datasets 5.2.0 (pyarrow 26.0.1). Seen: the rows of one/images for two/images.
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'datasets==5.2.0' 'pyarrow==26.0.1'
cat > "$work/try.py" <<'PY'
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: '*.parquet'
---
"""
seen = {}
for card in (True, False):
    for name in ("one", "two"):
        folder = f"{sys.argv[1]}/{card}/{name}/images"
        os.makedirs(folder)
        pq.write_table(pa.table({"said": [name]}), f"{folder}/0.parquet")
        if card:
            with open(f"{folder}/README.md", "w") as file:
                file.write(CARD)
        rows = load_dataset(folder, split="train", cache_dir=f"{sys.argv[1]}/cache")
        seen[card, name] = rows["said"][0]
        print("configs" if card else "no configs", name, "->", seen[card, name])
sys.exit(not (seen[True, "two"] == "one" and seen[False, "two"] == "two"))
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/try.py" "$work/data" 2>"$work/log" || {
  code=$?; tail -5 "$work/log"; exit "$code"; }
