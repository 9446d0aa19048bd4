"""One way to load a base model: a hub id, a folder or `embedded`, all the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from raysynth.errors import ModelError
from raysynth.models.device import pick_device, pick_dtype, weight_dtype
from raysynth.models.family import (
    CONFIGS,
    KEY,
    ROLES,
    Base,
    Family,
    Read,
    Role,
    family_of,
    reader_of,
)
from raysynth.models.headers import read_config
from raysynth.models.loading import (
    complete,
    frozen,
    load_or_explain,
    load_scheduler,
    plain_attention,
    quiet_transformers,
)
from raysynth.models.quantisation import is_quantised
from raysynth.models.scheduler import settled
from raysynth.models.settings import BaseConfigSection
from raysynth.models.shape import Shape
from raysynth.models.single_file import SingleFile
from raysynth.models.sources import check_base, resolve, variant_of
from raysynth.sides import Size


def load_base(
    base: BaseConfigSection, roles: Sequence[Role] = ROLES, size: Size | None = None
) -> Base:
    """Load (parts of) the base model onto the configured device, frozen and in eval mode.

    Weights come from safetensors only.

    Parameters
    ----------
    roles : what the parts that are loaded are for.
    size : of the images that are drawn; None: the model's own.

    Raises
    ------
    ModelError
        No family recognises the model; a part is missing or does not load.
    """
    from raysynth.models.attention import use_attention

    check_base(base, weights=False)
    source, device = resolve(base.name), pick_device(base.device)
    quiet_transformers()
    dtype = pick_dtype(base.dtype, device)
    hub = {} if os.path.isdir(source) else {"revision": base.revision}
    kept, plain = weight_dtype(dtype, device), plain_attention(base, device)
    single = None if base.weights is None else SingleFile(base.weights)
    files = Files(source, hub, kept, plain, single=single)
    family, shape = load_or_explain(KEY, source, files.known)
    shape = shape.of(size)
    wanted = {part for role in roles for part in family.roles[role]}
    parts: dict[str, Any] = {part: None for role in ROLES for part in family.roles[role]}
    for part in (name for name in parts if name in wanted):
        found = load_or_explain(f"{KEY}: {part}", source, partial(family.load, part, files))
        _quantise(found, part, family, base, device)
        parts[part] = frozen(found, device)
        use_attention(parts[part], base.attention, device, shape.positions)
    schedule = family.roles["scheduler"][0]
    if parts[schedule] is not None:
        parts[schedule] = settled(parts[schedule], shape.positions // family.patch**2)
    return Base(family, parts, shape, device, dtype)


def _quantise(
    model: Any, part: str, family: Family, base: BaseConfigSection, device: torch.device
) -> None:
    """Keep linear layers as the configuration says, before the model goes to the device."""
    known = part in family.roles["model"] + family.roles["text"]
    if is_quantised(base) and known and isinstance(model, torch.nn.Module):
        from raysynth.models.quantised import quantise

        quantise(model, base.quantization, device)


def described(base: BaseConfigSection) -> tuple[Family, Mapping[str, Any]]:
    """A base's family, and the configuration of its network; nothing else is asked for."""
    source = resolve(base.name)
    hub = {} if os.path.isdir(source) else {"revision": base.revision}
    read = Files(source, hub, torch.float32, plain=True).reader([])
    family = family_of(source, read)
    return family, read(family.roles["model"][0]) or {}


@dataclass(frozen=True)
class Files:
    """A `Loader` of one folder or hub id."""

    source: str
    hub: dict[str, Any]
    dtype: torch.dtype
    plain: bool
    key: str = KEY
    """Configuration key that names the folder, for messages."""
    single: SingleFile | None = None
    """Has weights of some parts instead."""

    def known(self) -> tuple[Family, Shape]:
        """The model's family and sizes."""
        unreachable: list[Exception] = []
        read = self.reader(unreachable)
        try:
            family = family_of(self.source, read)
        except ModelError:
            if unreachable:
                raise unreachable[0] from None
            raise
        return family, family.shape(read)

    def reader(self, unreachable: list[Exception]) -> Read:
        """Reads configurations; what of the hub cannot be asked for is noted in `unreachable`."""
        return self._hub_reader(unreachable) if self.hub else reader_of(Path(self.source))

    def weights(self, part: str, kind: Any, **options: Any) -> Any:
        """A part with weights, of a class of diffusers or transformers."""
        if self.single is not None and self.single.holds(part):
            return self._of_file(self.single, part, kind, options)
        variant = variant_of(Path(self.source) / part)
        found = kind.from_pretrained(
            self.source,
            subfolder=part,
            use_safetensors=True,
            variant=variant,
            output_loading_info=True,
            **self.hub,
            **options,
        )
        return complete(f"{self.key}: {part}", self.source, found)

    def other(self, part: str, kind: Any) -> Any:
        """A part without weights."""
        return kind.from_pretrained(self.source, subfolder=part, **self.hub)

    def scheduler(self, part: str) -> Any:
        """The diffusers scheduler that a part's configuration names."""
        return load_scheduler(self.source, self.hub)

    def _of_file(self, single: SingleFile, part: str, kind: Any, options: dict[str, Any]) -> Any:
        config = self.source
        if self.hub:
            config = str(
                Path(hf_hub_download(config, f"{part}/config.json", **self.hub)).parents[1]
            )
        dtype = options.get("torch_dtype", options.get("dtype"))
        found = single.load(part, kind, config, dtype)
        if "attn_implementation" in options:
            found.set_attn_implementation(options["attn_implementation"])
        return found

    def _hub_reader(self, unreachable: list[Exception]) -> Read:
        """Reads from the hub or its cache; a file that cannot be asked for is none, and noted."""

        def read(part: str) -> Any:
            name = f"{part}/{CONFIGS.get(part, 'config.json')}".lstrip("/")
            try:
                path = hf_hub_download(self.source, name, **self.hub)
            except LocalEntryNotFoundError as error:
                unreachable.append(error)
                return None
            except EntryNotFoundError:
                return None
            return read_config(KEY, Path(path))

        return read
