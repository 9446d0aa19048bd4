#!/usr/bin/env bash
# diffusers' DPMSolverMultistepScheduler documents set_timesteps(timesteps=[...]) "to support
# arbitrary timesteps schedule". With use_flow_sigmas it computes with num_inference_steps, which
# then must be None, and ends in a TypeError. UniPCMultistepScheduler documents
# set_timesteps(sigmas: list of float) for flows, and ends in a TypeError for a list of floats; an
# array does, and is shifted once more where flow_shift is not 1.
#
# Version: diffusers 0.42.1. Seen: both raise; UniPC with flow_shift 3 makes .9, .5, .1 of an array
# to .964, .75, .25. Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'diffusers==0.42.1' 'torch==2.13.0' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

import numpy as np
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
raised = []
for what, call in {
    "DPMSolverMultistep, timesteps=[900, 500, 100]": lambda: DPMSolverMultistepScheduler(
        **flow
    ).set_timesteps(timesteps=[900, 500, 100]),
    "UniPCMultistep, sigmas=[0.9, 0.5, 0.1]": lambda: UniPCMultistepScheduler(
        **flow
    ).set_timesteps(sigmas=[0.9, 0.5, 0.1]),
}.items():
    try:
        call()
        print(f"{what}: works")
    except TypeError as error:
        raised.append(what)
        print(f"{what}: TypeError: {error}")
shifted = UniPCMultistepScheduler(**flow, flow_shift=3.0)
shifted.set_timesteps(sigmas=np.array([0.9, 0.5, 0.1]))
print("UniPCMultistep, flow_shift=3, an array of .9 .5 .1:", shifted.sigmas.tolist()[:3])
sys.exit(not (len(raised) == 2 and abs(shifted.sigmas[1].item() - 0.75) < 1e-3))
PY
"$work/venv/bin/python" "$work/try.py"
