#!/usr/bin/env bash
# Of two Ray nodes on one machine that share Ray's folder (as `ray start` makes them), the second
# unpacks a job's package anew when it first runs a task of it, over the first one's: the driver,
# which runs in that folder, has no working directory from then on.
#
# Version: ray 2.60.0. Seen: os.getcwd() of the driver raises FileNotFoundError after a task on the
# second node; with a `--temp-dir` of its own for that node it does not. Surprising because nothing
# of the job failed, and the folder's name and content are the same as before.
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d -p /tmp r.XXXX); pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; sleep 3; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
pip install -q --disable-pip-version-check 'ray[default]==2.60.0'
mkdir "$work/package"
cat > "$work/package/driver.py" <<'PY'
import os

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(log_to_driver=False)
os.getcwd()
here = ray.get_runtime_context().get_node_id()
other = next(n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here)
where = NodeAffinitySchedulingStrategy(other, soft=False)
ray.get(ray.remote(num_cpus=1)(os.getpid).options(scheduling_strategy=where).remote())
try:
    os.getcwd()
    print("SEEN there", flush=True)
except FileNotFoundError:
    print("SEEN gone", flush=True)
PY
small=(--num-cpus=1 --num-gpus=0 --object-store-memory=100000000 --dashboard-agent-listen-port=0
  --min-worker-port=0 --max-worker-port=0 --block)
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
wait_for() { for _ in $(seq 90); do grep -q "Ray runtime started" "$1" && return; sleep 1; done; cat "$1"; exit 1; }

try() {  # more flags of the second node
  local port dashboard first second; port=$(free); dashboard=$(free)
  ray start --head --port="$port" --dashboard-port="$dashboard" --temp-dir="$work/a" \
    "${small[@]}" > "$work/head" 2>&1 & first=$!; pids+=("$first"); wait_for "$work/head"
  ray start --address="127.0.0.1:$port" "${small[@]}" "$@" > "$work/node" 2>&1 &
  second=$!; pids+=("$second"); wait_for "$work/node"
  ray job submit --address "http://127.0.0.1:$dashboard" --working-dir "$work/package" \
    --entrypoint-num-cpus 0 -- python driver.py > "$work/job" 2>&1 || true
  grep -o "SEEN [a-z]*" "$work/job" || { tail -5 "$work/job"; exit 1; }
  kill "$second" "$first"; wait "$second" "$first" 2>/dev/null || true
  rm -rf "$work/a" "$work/b" "$work/head" "$work/node"
}
one=$(try); two=$(try --temp-dir="$work/b")
echo "one folder:          $one"
echo "a folder each:       $two"
[ "$one" = "SEEN gone" ] && [ "$two" = "SEEN there" ]
