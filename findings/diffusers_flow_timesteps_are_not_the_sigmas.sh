#!/usr/bin/env bash
# diffusers' multistep solvers cut a flow's timesteps to whole numbers: the network is told a lower
# noise level than the solver goes on from, by up to a thousandth; two steps nearer than that to one
# another get the same timestep, and the first step then takes the second one's sigma, so that the
# last has none to go to.
#
# Version: diffusers 0.42.1. Seen: DPMSolverMultistepScheduler with flow_shift 30 and 50 steps: sigmas
# .99997 and .9993, both at timestep 999, and an IndexError in the last step. Exits non-zero when
# that changes. (huggingface/diffusers#12771 is the same of a cosine schedule's Karras sigmas.)
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'diffusers==0.42.1' 'torch==2.13.0' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

import torch
from diffusers import DPMSolverMultistepScheduler

solver = DPMSolverMultistepScheduler(
    use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=30.0
)
solver.set_timesteps(50)
told, sigmas = solver.timesteps.double() / 1000, solver.sigmas[:-1].double()
print(f"largest difference of timestep / 1000 and sigma: {(sigmas - told).abs().max():.5f}")
print("first timesteps:", solver.timesteps[:4].tolist(), "sigmas:", solver.sigmas[:4].tolist())
x, failed = torch.ones(1, 1), ""
try:
    for timestep in solver.timesteps:
        x = solver.step(torch.zeros_like(x), timestep, x, return_dict=False)[0]
except IndexError as error:
    failed = str(error)
print("50 steps:", failed or "work")
sys.exit(not failed)
PY
"$work/venv/bin/python" "$work/try.py"
