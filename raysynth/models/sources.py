"""Where a base model comes from, and what can be refused without loading any of it.

Nothing here imports torch or diffusers: a wrong path is refused at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysynth.config import BaseConfigSection
from raysynth.errors import ModelError

EMBEDDED = Path(__file__).parent / "tiny"
TREE = {
    "unet/config.json": "unet/diffusion_pytorch_model*.safetensors",
    "vae/config.json": "vae/diffusion_pytorch_model*.safetensors",
    "text_encoder/config.json": "text_encoder/model*.safetensors",
    "tokenizer/tokenizer_config.json": "tokenizer/*",
    "scheduler/scheduler_config.json": "scheduler/*",
}
CLIP = "clip"
"""Name of the run's own CLIP, as `clustering.encoder` or `classifier.backbone`."""
CLIP_TREE = {
    "config.json": "model*.safetensors",
    "tokenizer_config.json": "*processor_config.json",
}
WEIGHTS = r"(?:diffusion_pytorch_|)model(?:\.(.+?))?(?:-\d+-of-\d+)?\.safetensors"
"""Files of weights; the group is their variant."""


def resolve(name: str, clip: bool = False) -> str:
    """What to load for a configured name: a folder's absolute path, or a hub id.

    `embedded` is the tiny base shipped in the package (its CLIP with `clip`). Raises ModelError for
    something that looks like a folder and is none.
    """
    if name == "embedded":
        return str(EMBEDDED / "clip" if clip else EMBEDDED)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    if is_path(name):
        raise ModelError(
            f"base.{'clip' if clip else 'name'}: no folder {name}; expected `embedded`, a model "
            "folder, or a hub id of the form owner/model. Fix: check the path (on a cluster every "
            f"node must see it){_beside(folder)}"
        )
    return name


def is_path(name: str) -> bool:
    """Whether a configured model can only be a folder, if it is anything.

    A hub id is owner/model. Where a folder has the owner's name, a folder inside it is meant.
    """
    folder = Path(name).expanduser()
    looks = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1
    return looks or folder.exists() or folder.parent.is_dir()


def _beside(folder: Path) -> str:
    """What is to be said of a name that would be a hub id, were there no folder `owner`."""
    if folder.is_absolute() or len(folder.parts) != 2 or not folder.parent.is_dir():
        return ""
    return f"; if the hub's is meant, run where there is no folder {folder.parent}"


def variant_of(folder: Path) -> str | None:
    """diffusers' and transformers' `variant` of a model folder's weights, such as fp16.

    None where there are weights without one, which are taken then.
    """
    found = {
        match[1]
        for path in folder.glob("*.safetensors")
        if (match := re.fullmatch(WEIGHTS, path.name)) is not None
    }
    return None if None in found else min(found, default=None)


def vae_factor(config: Mapping[str, Any]) -> int:
    """Pixels per latent position, of an autoencoder's configuration."""
    return int(2 ** (len(config["block_out_channels"]) - 1))


def check_base(base: BaseConfigSection) -> None:
    """Refuse a base model that cannot be used, as far as it can be known without loading it.

    Raises
    ------
    ModelError
        A folder that is not a Stable Diffusion 1.x layout, or whose parts do not fit each other.
        (What a hub id holds is known when it is loaded.)
    """
    source = resolve(base.name)
    if os.path.isdir(source):
        _check_tree("base.name", source, TREE)
        _check_fit(source)


def check_clip(base: BaseConfigSection) -> None:
    """Refuse a CLIP folder that lacks files; raises ModelError."""
    source = resolve(base.clip, clip=True)
    if os.path.isdir(source):
        _check_tree("base.clip", source, CLIP_TREE)


def check_encoder(name: str) -> None:
    """Refuse, without loading weights, a folder that transformers cannot read; raises ModelError.

    (What a hub id holds is known when it is loaded.)
    """
    if name == CLIP or not is_path(name):
        return
    folder = os.path.expanduser(name)
    needed = ("config.json", "preprocessor_config.json")
    missing = [file for file in needed if not os.path.isfile(os.path.join(folder, file))]
    if missing:
        raise ModelError(
            f"clustering.encoder: {name} lacks {', '.join(missing)}; expected `clip`, a hub "
            "id (owner/model), or a folder in which save_pretrained wrote a vision model and its "
            "image processor. Fix: "
            "check the path (on a cluster every node must see it)"
        )


def _check_tree(key: str, source: str, tree: dict[str, str]) -> None:
    folder = Path(source)
    missing = [name for name in tree if not (folder / name).is_file()]
    missing += [pattern for pattern in tree.values() if not any(folder.glob(pattern))]
    if missing:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        expected = "\n  ".join(dict.fromkeys((*tree, *tree.values())))
        raise ModelError(
            f"{key}: {folder} lacks {', '.join(dict.fromkeys(missing))}; found {found}; "
            "expected\n  "
            f"{expected}\nFix: point {key} to a folder saved by diffusers' or transformers' "
            "save_pretrained with safe_serialization=True"
        )


def _check_fit(source: str) -> None:
    unet, vae, text = (
        json.loads((Path(source) / part / "config.json").read_text())
        for part in ("unet", "vae", "text_encoder")
    )
    kind = unet.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel" or unet.get("addition_embed_type"):
        raise ModelError(
            f"base.name: {source}/unet is a {kind} with addition_embed_type="
            f"{unet.get('addition_embed_type')}; expected a plain UNet2DConditionModel (Stable "
            "Diffusion 1.x). Fix: choose a Stable Diffusion 1.x model"
        )
    fits = (
        ("in_channels", unet.get("in_channels", 4), vae.get("latent_channels", 4)),
        ("cross_attention_dim", unet.get("cross_attention_dim", 1280), text["hidden_size"]),
    )
    for what, got, needed in fits:
        if got != needed:
            raise ModelError(
                f"base.name: {source}/unet has {what}={got}, but its vae and text encoder need "
                f"{needed}. Fix: keep the parts of one model together"
            )
