#!/usr/bin/env bash
# torchao's int8 weight-only linear layer, frozen, keeps a whole copy of its weights in the input's
# precision for the backward pass: its product is `torch.mm(x, qdata.t().to(dtype))`, whose second
# factor autograd saves. All layers' copies lie there at once between forward and backward, so that
# training an adapter beside a quantised base takes the memory of a whole one, and the 8 bits too.
#
# Version: torchao 0.18.0, torch 2.13.0. Seen: a layer of 512 x 512 in float32 saves 512 x 512
# numbers of 4 bytes. Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'torchao==0.18.0' 'torch==2.13.0' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

import torch
from torchao.quantization import Int8WeightOnlyConfig, quantize_

WIDTH = 512
layer = torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)
quantize_(layer, Int8WeightOnlyConfig())
saved = []


def pack(tensor):
    saved.append(tensor)
    return tensor


x = torch.randn(4, WIDTH, requires_grad=True)
with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
    layer(x)
for tensor in saved:
    print("saved for backward:", tuple(tensor.shape), tensor.dtype, tensor.nbytes, "bytes")
print("the weights are kept as", layer.weight.qdata.dtype, layer.weight.qdata.nbytes, "bytes")
sys.exit(not any(tensor.numel() == WIDTH * WIDTH for tensor in saved))
PY
"$work/venv/bin/python" "$work/try.py"
