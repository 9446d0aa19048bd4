#!/usr/bin/env bash
# The same tensors with the same metadata of two keys are saved as other bytes from one call to the
# next: the metadata's order is drawn anew, so that a hash of a file of weights names no weights.
# diffusers writes two keys into every LoRA file (`format`, `lora_adapter_metadata`). With one key the
# bytes are always the same.
#
# Version: safetensors 0.8.0 (numpy 2.4.6). Seen: 2 files of 64 saves with two keys, 1 with one key;
# the tensors are equal in all.
# Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'safetensors==0.8.0' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

import numpy as np
from safetensors import __version__
from safetensors.numpy import load, save

weights = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.float16)}
counts = {}
for metadata in ({"format": "pt"}, {"format": "pt", "lora_adapter_metadata": "{}"}):
    files = {save(weights, metadata) for _ in range(64)}
    for file in files:
        found = load(file)
        assert all(np.array_equal(found[name], weights[name]) for name in weights)
    counts[len(metadata)] = len(files)
    print(f"safetensors {__version__}: {len(metadata)} key(s) -> {len(files)} file(s) of 64 saves")
sys.exit(0 if counts == {1: 1, 2: 2} else 1)
PY
"$work/venv/bin/python" "$work/try.py"
