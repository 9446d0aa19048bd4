"""A folder's weights as one file under the names of Stable Diffusion's own code, and Z-Image's.

The other way round than diffusers' translations, for the tiny models of `random_families`.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING as NAMES
from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
EACH = 2
"""Layers of a block, and what leads to the next, in a UNet with one layer per block."""
Weights = dict[str, Tensor]


def read(folder: Path, part: str) -> Weights:
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def unet(weights: Weights) -> Weights:
    known = {**NAMES["unet"]["layers"], **NAMES["unet"]["addition_embed_type"]}
    return {f"model.diffusion_model.{known.get(k) or _of_unet(k)}": v for k, v in weights.items()}


def _of_unet(name: str) -> str:
    found = re.match(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.*)", name)
    assert found, name
    where, block, kind, layer, rest = found.groups()
    if kind == "resnets":
        first, _, last = rest.rpartition(".")
        rest = f"{RESNET[first]}.{last}"
    place = 1 if kind == "attentions" else 0
    if where == "mid":
        return f"middle_block.{1 if place else 2 * int(layer)}.{rest}"
    number = EACH * int(block or 0) + int(layer)
    if kind == "downsamplers":
        return f"input_blocks.{EACH * int(block or 0) + 2}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{EACH * int(block or 0) + 1}.2.{rest}"
    side = "input_blocks" if where == "down" else "output_blocks"
    return f"{side}.{number + (where == 'down')}.{place}.{rest}"


def vae(weights: Weights, blocks: int = 3) -> Weights:
    found = {}
    for name, value in weights.items():
        new = NAMES["vae"].get(name, name).replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(
            r"up_blocks\.(\d)\.(resnets|upsamplers\.0)",
            lambda m: f"up.{blocks - 1 - int(m[1])}.{'block' if m[2] == 'resnets' else 'upsample'}",
            new,
        )
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        found[f"first_stage_model.{new}"] = value
    return found


def clip(weights: Weights, begin: str) -> Weights:
    """transformers' own names, behind a module's."""
    plain = {name.removeprefix("text_model."): value for name, value in weights.items()}
    return {f"{begin}.transformer.text_model.{name}": value for name, value in plain.items()}


def open_clip(weights: Weights, begin: str) -> Weights:
    known, inner = NAMES["openclip"]["layers"], NAMES["openclip"]["transformer"]
    found: Weights = {}
    for name, value in weights.items():
        if name in known:
            turned = value.T.contiguous() if name == "text_projection.weight" else value
            found[f"{begin}.model.{known[name]}"] = turned
            continue
        new = name
        for theirs, own in list(inner.items())[:6]:
            new = new.replace(theirs, own)
        if part := re.search(r"\.([qkv])_proj\.(weight|bias)$", new):
            layer = f"{begin}.model.transformer.{new[: part.start()]}.in_proj_{part[2]}"
            three = [weights[name.replace(f"{part[1]}_proj", f"{p}_proj")] for p in "qkv"]
            found[layer] = torch.cat(three)
        else:
            found[f"{begin}.model.transformer.{new}"] = value
    return found


def z_image(weights: Weights) -> Weights:
    found: Weights = {}
    for name, value in weights.items():
        new = name.replace("all_final_layer.2-1.", "final_layer.")
        new = new.replace("all_x_embedder.2-1.", "x_embedder.")
        new = new.replace("attention.to_out.0", "attention.out")
        new = re.sub(r"attention\.norm_([qk])", r"attention.\1_norm", new)
        if re.search(r"attention\.to_[kv]\.", new):
            continue
        if "attention.to_q." in new:
            value = torch.cat([weights[name.replace("to_q", f"to_{p}")] for p in "qkv"])
            new = new.replace("attention.to_q", "attention.qkv")
        found[new] = value
    return found


def in_one_file(family: str, folder: Path, path: Path) -> Path:
    """Write the weights of a folder's parts as their authors publish them."""
    if family.startswith("stable_diffusion"):
        found = unet(read(folder, "unet")) | vae(read(folder, "vae"))
        text = read(folder, "text_encoder")
        if family == "stable_diffusion_xl":
            found |= clip(text, "conditioner.embedders.0")
            found |= open_clip(read(folder, "text_encoder_2"), "conditioner.embedders.1")
        else:
            found |= clip(text, "cond_stage_model")
    else:
        network = read(folder, "transformer")
        found = z_image(network) if family == "z_image" else network
    save_file({name: value.contiguous() for name, value in found.items()}, path, {"format": "pt"})
    return path
