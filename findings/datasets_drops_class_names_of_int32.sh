#!/usr/bin/env bash
# `datasets` ignores the ClassLabel that a Parquet file's own metadata declares when the column is
# int32: the names are gone, without a warning. With int64 they are kept.
#
# Version: datasets 5.2.0 (pyarrow 26.0.1). Seen: Value('int32') against ClassLabel(names=[...]).
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'datasets==5.2.0' 'pyarrow==26.0.1'
cat > "$work/try.py" <<'PY'
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

feature = {"label": {"names": ["coat", "bag"], "_type": "ClassLabel"}}
said = {"huggingface": json.dumps({"info": {"features": feature}})}
seen = {}
for kind in (pa.int32(), pa.int64()):
    schema = pa.schema([pa.field("label", kind)]).with_metadata(said)
    file = f"{sys.argv[1]}/{kind}.parquet"
    pq.write_table(pa.table({"label": [0, 1]}, schema=schema), file)
    loaded = load_dataset("parquet", data_files=file, split="train", cache_dir=sys.argv[1])
    seen[str(kind)] = str(loaded.features["label"])
    print(kind, "->", seen[str(kind)])
sys.exit(not (seen["int32"] == "Value('int32')" and seen["int64"].startswith("ClassLabel")))
PY
mkdir "$work/data"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/try.py" "$work/data" 2>"$work/log" || {
  code=$?; tail -5 "$work/log"; exit "$code"; }
