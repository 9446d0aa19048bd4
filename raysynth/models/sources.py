"""Where a base model comes from, and what can be refused without loading any of it.

Nothing here imports torch or diffusers: a wrong path is refused at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

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
    is_path = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if is_path or folder.exists():
        raise ModelError(
            f"base.{'clip' if clip else 'name'}: no folder {name}; expected `embedded`, a model "
            "folder, or a hub id such as owner/model. Fix: check the path (on a cluster every node "
            "must see it)"
        )
    return name


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
    folder = os.path.expanduser(name)
    is_path = os.path.isabs(folder) or name.startswith(".") or os.path.isdir(folder)
    if name == CLIP or not is_path:
        return
    needed = ("config.json", "preprocessor_config.json")
    missing = [file for file in needed if not os.path.isfile(os.path.join(folder, file))]
    if missing:
        raise ModelError(
            f"clustering.encoder: {name} lacks {', '.join(missing)}; expected `clip`, a hub id, or "
            "a folder in which save_pretrained wrote a vision model and its image processor. Fix: "
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
