"""Where a base model comes from, and what can be refused without loading any of it.

Nothing here imports torch or diffusers but for what holds a folder's weights against its
architecture, last: a wrong path is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysynth.errors import ModelError
from raysynth.models.efficientnet_lite import check_lite
from raysynth.models.family import KEY, Family, check_tree, family_of, reader_of
from raysynth.models.headers import read_config
from raysynth.models.headers import variant_of as variant_of
from raysynth.models.mirror import located
from raysynth.models.quantisation import check_quantisation
from raysynth.models.settings import CLIP as CLIP
from raysynth.models.settings import LITE, BaseConfigSection
from raysynth.models.single_file import HELD as PARTS
from raysynth.models.single_file import SingleFile
from raysynth.terminal import masked

EMBEDDED = Path(__file__).parent / "tiny"
CLIP_TREE = {
    "config.json": "model*.safetensors",
    "tokenizer_config.json": "*processor_config.json",
}
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Where transformers looks for an image processor; the first has one for each kind of input."""


def resolve(name: str, clip: bool = False) -> str:
    """What to load for a configured name: a folder's absolute path, or a hub id.

    `embedded` is the tiny base shipped in the package (its CLIP with `clip`). Raises ModelError for
    something that looks like a folder and is none.
    """
    if name == "embedded":
        return str(EMBEDDED / "clip" if clip else EMBEDDED)
    key = f"base.{'clip' if clip else 'name'}"
    folder = Path(located(name, key))
    if folder.is_dir():
        return str(folder.absolute())
    if folder.is_file():
        raise ModelError(
            f"{key}: {name} is a file; expected `embedded`, a model "
            "folder, or a hub id of the form owner/model. Fix: for one file of weights, "
            f"base.weights={name} and, as base.name, the model whose configurations it is of"
        )
    if is_path(name):
        raise ModelError(
            f"{key}: no folder {masked(name)}; expected `embedded`, a "
            f"model folder, or a hub id of the form owner/model. Fix: {_instead(name, folder)}"
        )
    return name


def _instead(name: str, folder: Path) -> str:
    """What to do about a name that can only be a folder, and is none."""
    if name.startswith("hf://"):
        return f"name it {name.removeprefix('hf://')}"
    return f"check the path (on a cluster every node must see it){_beside(folder)}"


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


def check_base(base: BaseConfigSection, weights: bool = True) -> None:
    """Refuse a base model that cannot be used, as far as it can be known without loading it.

    `weights`: hold the weights' headers against the architecture too, which imports diffusers (the
    embedded base is known to fit).

    Raises
    ------
    ConfigError
        See `check_quantisation`.
    ModelError
        A folder of no known family (`raysynth.models.families`), files that cannot be read, parts
        that do not fit each other, weights that are missing. (What a hub id holds is known when it
        is loaded.)
    """
    check_quantisation(base)
    source = Path(resolve(base.name))
    file = None if base.weights is None else SingleFile(base.weights)
    if not source.is_dir():
        return
    family = family_of(str(source), reader_of(source))
    held = [] if file is None else [part for part in PARTS if file.holds(part)]
    check_tree(KEY, source, _without_weights(family.tree, held))
    family.check(source)
    if weights and source != EMBEDDED:
        family.check_weights(source, held)
    if weights and file is not None:
        file.check(family, source)


def _without_weights(tree: Mapping[str, str], held: Collection[str]) -> dict[str, str]:
    """A folder's files, without the weights of the parts that are in another file."""
    return {name: name if name.split("/")[0] in held else kept for name, kept in tree.items()}


def known_family(base: BaseConfigSection) -> Family | None:
    """The family of a base in a folder; None of a hub id, which is known when it is loaded.

    Raises ModelError: none recognises it.
    """
    source = Path(resolve(base.name))
    return family_of(str(source), reader_of(source)) if source.is_dir() else None


def strange_words(texts: Sequence[str]) -> list[str]:
    """Words of texts that are no token of the embedded base, which spells them letter by letter."""
    tokenizer = json.loads((EMBEDDED / "tokenizer" / "tokenizer.json").read_text())
    known = tokenizer["model"]["vocab"]
    words = dict.fromkeys(word for text in texts for word in text.lower().split())
    return [word for word in words if f"{word}</w>" not in known]


def check_clip(base: BaseConfigSection, weights: bool = True) -> None:
    """Refuse a folder that is no CLIP, lacks files or weights; raises ModelError.

    `weights`: as `check_base`.
    """
    key, source = "base.clip", Path(resolve(base.clip, clip=True))
    if not source.is_dir():
        return
    check_tree(key, source, CLIP_TREE)
    read_config(key, source / "tokenizer_config.json")
    kind = read_config(key, source / "config.json").get("model_type")
    if kind != "clip":
        raise ModelError(
            f"{key}: {source}/config.json has model_type {kind!r}; expected 'clip', images and "
            "texts in one space. Fix: choose a whole CLIP, such as openai/clip-vit-base-patch32"
        )
    pixel_statistics(key, image_settings(key, source), str(source))
    if weights and source != EMBEDDED / "clip":
        from raysynth.models.architecture import check_clip_weights

        check_clip_weights(key, source)


def check_encoder(name: str, weights: bool = True, key: str = "clustering.encoder") -> None:
    """Refuse a folder that transformers cannot read as a vision model; raises ModelError.

    `efficientnet_lite0` is refused where its package is not. `weights`: as `check_base`. (What a
    hub id holds is known when it is loaded.) `key`: the knob.
    """
    if name == LITE:
        check_lite(key)
        return
    if name == CLIP or not is_path(name):
        return
    folder = Path(located(name, key))
    needed = ("config.json", "preprocessor_config.json")
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise ModelError(
            f"{key}: {name} lacks {', '.join(missing)}; expected `clip`, `{LITE}`, a hub "
            "id (owner/model), or a folder in which save_pretrained wrote a vision model and its "
            "image processor. Fix: "
            "check the path (on a cluster every node must see it)"
        )
    for file in needed:
        read_config(key, folder / file)
    if weights:
        from raysynth.models.architecture import check_encoder_weights

        check_encoder_weights(key, folder)


def check_captioner(name: str, key: str) -> None:
    """Refuse a folder that transformers cannot read as an image-to-text model; raises ModelError.

    (What a hub id holds is known when it is loaded.) `key`: the knob.
    """
    if not is_path(name):
        return
    folder = Path(located(name, key))
    alternatives = (("config.json",), PROCESSORS, ("tokenizer_config.json",), ("*.safetensors",))
    missing = [some[-1] for some in alternatives if not any(any(folder.glob(f)) for f in some)]
    if missing:
        raise ModelError(
            f"{key}: {name} lacks {', '.join(missing)}; expected a hub id (owner/model), or a "
            "folder in which save_pretrained wrote an image-to-text model, its image processor and "
            "its tokenizer. Fix: check the path (on a cluster every node must see it)"
        )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN,
    )

    kind = read_config(key, folder / "config.json").get("model_type")
    if kind not in KNOWN:
        raise ModelError(
            f"{key}: {folder}/config.json has model_type {kind!r}; expected an image-to-text model "
            "of transformers. Fix: choose one, such as Salesforce/blip-image-captioning-base"
        )


def image_settings(key: str, folder: Path) -> dict[str, Any]:
    """An image processor's settings in a folder, {} where it has none; raises ModelError."""
    nested, own = (
        read_config(key, folder / name) if (folder / name).is_file() else {} for name in PROCESSORS
    )
    inside = nested.get("image_processor", own)
    return inside if isinstance(inside, dict) else {}


def pixel_statistics(
    key: str, settings: Mapping[str, Any], source: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the three channels, shares of 1; raises ModelError."""
    mean, std = (_three(key, settings, name, source) for name in ("image_mean", "image_std"))
    return mean, std


def _three(key: str, settings: Mapping[str, Any], name: str, source: str) -> tuple[float, ...]:
    values: Any = settings.get(name)
    three = isinstance(values, list | tuple) and len(values) == 3
    if not three or not all(isinstance(v, int | float) and abs(v) < 1e6 for v in values):
        raise ModelError(
            f"{key}: the image processor of {source} has {name}={values!r:.80}; expected three "
            "numbers. Fix: keep the preprocessor_config.json of the model beside its weights"
        )
    return tuple(map(float, values))
