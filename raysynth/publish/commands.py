"""`raysynth export` and `push`: arguments in, a line out; no logic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from raysynth.config.storage import require_filesystem
from raysynth.endings import in_words
from raysynth.errors import ConfigError
from raysynth.publish import ADAPTERS, IMAGES

if TYPE_CHECKING:
    from raysynth.config.config import Config

Run = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN | CONFIG.yaml section.key=value ...]",
        help="A run's folder or URI, or what it was run with; default: the default's run.",
        show_default=False,
    ),
]
To = Annotated[str, typer.Option("--to", metavar="FOLDER", help="New or empty folder or URI.")]
What = Annotated[
    str,
    typer.Argument(
        metavar="METHOD|images|adapters",
        help="A trained method of the run's table; or its images; or its LoRA adapters.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="METHOD: training seed; default: the best on validation."),
]
Onnx = Annotated[
    bool, typer.Option("--onnx", help="METHOD: as model.onnx too (needs raysynth[onnx]).")
]
Which = Annotated[
    str, typer.Option("--of", help="images: kept, all, real or both (real and kept).")
]
Form = Annotated[
    str | None,
    typer.Option(
        "--form",
        help="images: parquet (default), imagefolder, webdataset; adapters: kohya (default), peft.",
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="NAME", help="adapters: this one; again.")
]
Certificate = Annotated[
    str, typer.Option("--certificate", help="images: sign by C2PA; PEM file of the chain.")
]
Key = Annotated[str, typer.Option("--key", help="images: PEM file of its private key.")]


def export(
    what: What,
    run: Run = None,
    to: To = "",
    seed: Seed = None,
    onnx: Onnx = False,
    which: Which = "kept",
    form: Form = None,
    only: Only = None,
    certificate: Certificate = "",
    key: Key = "",
) -> None:
    """Save what a finished run made, as other tools read it; nothing is trained or generated."""
    with in_words():
        if what == ADAPTERS:
            said = _adapters(run, to, form or "kohya", only or ())
        elif what == IMAGES:
            config = _config(run, to)
            from raysynth.progress import Progress
            from raysynth.publish.images import DEFAULT, export_images

            sign = None
            if certificate or key:
                from raysynth.publish.signed import signer

                sign = signer(certificate, key)
            with Progress() as display:
                said = export_images(config, to, display, which, form or DEFAULT, sign)
        else:
            from raysynth.export import export as export_classifier

            config = _config(run, to)
            said = export_classifier(config, what, to, seed, onnx)
    print(said)


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder or URI.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The Hub's repository.")],
    what: Annotated[
        str, typer.Option("--what", help="shipped, another METHOD, images (kept) or adapters.")
    ] = "shipped",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files; the network is not asked.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="For everybody to see; else a new one is private.")
    ] = False,
) -> None:
    """Upload what a finished run made to the Hugging Face Hub, with its card."""
    with in_words():
        config = _config([run])
        from raysynth.progress import Progress
        from raysynth.publish.push import push as upload

        with Progress() as display:
            said = upload(config, repo, display, what, dry_run, public)
    print(said)


def _adapters(run: list[str] | None, to: str, form: str, only: Sequence[str]) -> str:
    """Export the adapters of a run of the method, or of `raysynth train`."""
    from raysynth.config.config import Config
    from raysynth.config.files import read_written
    from raysynth.publish.adapters import export_adapters, export_trained
    from raysynth.stages.run import CONFIG
    from raysynth.storage.files import exists

    named = run[0].rstrip("/") if run and len(run) == 1 else ""
    file = f"{named}/{CONFIG}"
    values = read_written(file) if to and named and exists(file) else {}
    if values.get("command") != "train":
        return export_adapters(_config(run, to), to, form, only)
    require_filesystem(to, "--to")
    folder, _, name = named.rpartition("/")
    own = {"name": name, "storage_path": folder or ".", "base": values.get("base", {})}
    return export_trained(Config.model_validate(own), to, form, only)


def _config(run: list[str] | None, to: str | None = None) -> Config:
    """The configuration of the run that is named."""
    from raysynth.jobs.folder import config_of

    if to == "":
        raise ConfigError("--to: no folder given. Fix: --to FOLDER, a new or an empty one")
    if to:
        require_filesystem(to, "--to")
    return config_of(run or [])
