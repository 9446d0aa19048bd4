#!/usr/bin/env bash
# diffusers reads a kohya file whose layers have alphas of their own, and loses those of attention:
# the converter files them under `...attn1.processor.to_q_lora.down.weight`, a name that no module
# has, so PEFT's alpha_pattern matches nothing and the layer gets the alpha that most others have.
# PEFT warns that keys "did not match any targeted module and were ignored"; images are others.
#
# Version: diffusers 0.42.1, peft 0.21.2. Seen: an attention layer of rank 2 and alpha 8 beside two
# convolutions of rank 2 and alpha 2: scaled by 1 instead of 4. Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'diffusers==0.42.1' 'peft==0.21.2' 'transformers==5.23.0' 'accelerate==1.15.0' \
  'torch==2.13.0' 'numpy==2.4.6'
cat > "$work/try.py" <<'PY'
import sys

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=8,
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
)
alphas = {
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": 8.0,
    "down_blocks.0.resnets.0.conv1": 2.0,
    "down_blocks.1.resnets.0.conv1": 2.0,
}
state = {}
for name, alpha in alphas.items():
    outputs, *kernel = unet.get_submodule(name).weight.shape
    layer = "lora_unet_" + name.replace(".", "_")
    state[f"{layer}.lora_down.weight"] = torch.ones(2, *kernel)
    state[f"{layer}.lora_up.weight"] = torch.ones(outputs, 2, *[1] * (len(kernel) - 1))
    state[f"{layer}.alpha"] = torch.tensor(alpha)
state, network_alphas = StableDiffusionPipeline.lora_state_dict(state)
StableDiffusionPipeline.load_lora_into_unet(state, network_alphas, unet)
lost = False
for name, alpha in alphas.items():
    found = next(iter(unet.get_submodule(name).scaling.values()))
    print(f"{name}: alpha {alpha:g}, rank 2, scaled by {found:g}, expected {alpha / 2:g}")
    lost |= found != alpha / 2
sys.exit(not lost)
PY
"$work/venv/bin/python" "$work/try.py"
