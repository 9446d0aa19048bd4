#!/usr/bin/env bash
# Ray Data takes a folder `key=value` anywhere above a single Parquet file for a hive partition, and
# its value replaces the file's own column of that name, without a word.
#
# Version: ray 2.60.0 (pyarrow 26.0.1). Seen: a file with seed = 10, 11, 12 in /.../seed=1/run/ is
# read as seed = 1, 1, 1; with `partitioning=None` as 10, 11, 12. Surprising because the file was
# named by its full path, and the folder belongs to whoever chose it (a sweep's output folder).
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'ray[data]==2.60.0' 'pyarrow==26.0.1' 'pandas==3.1.1' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import ray

folder = os.path.join(sys.argv[1], "seed=1", "run")
os.makedirs(folder)
file = os.path.join(folder, "part.parquet")
pq.write_table(pa.table({"seed": [10, 11, 12]}), file)
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
default = sorted(row["seed"] for row in ray.data.read_parquet(file).take_all())
without = sorted(row["seed"] for row in ray.data.read_parquet(file, partitioning=None).take_all())
print("written:           [10, 11, 12]")
print("read by default:  ", default)
print("partitioning=None:", without)
sys.exit(not (list(map(str, default)) == ["1", "1", "1"] and without == [10, 11, 12]))
PY
RAY_USAGE_STATS_ENABLED=0 "$work/venv/bin/python" "$work/try.py" "$work/data" 2>"$work/log" || {
  code=$?; tail -5 "$work/log"; exit "$code"; }
