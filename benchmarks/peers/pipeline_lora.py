"""What a user runs without raysynth: diffusers' pipeline, one LoRA adapter after another.

    python benchmarks/peers/pipeline_lora.py ADAPTERS OUT --images 100 --per-call 25 [--steps 6]

Loads the base once; for each adapter: load_lora_weights, calls of `--per-call` images, PNG files,
unload. Prints JSON: seconds from the first load_lora_weights to the last file, and images.
`--tuned`: bfloat16 weights and the adapter fused, as diffusers' performance guide advises.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapters", help="folder of a fine-tuning stage")
    parser.add_argument("out", help="folder for <adapter>-<number>.png")
    parser.add_argument("--base", required=True, help="model folder or hub id")
    parser.add_argument("--images", type=int, required=True, help="per adapter")
    parser.add_argument("--per-call", type=int, default=8, help="num_images_per_prompt")
    parser.add_argument("--steps", type=int, default=50, help="the pipeline's default is 50")
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--only", type=int, default=None, help="the first adapters only")
    parser.add_argument("--tuned", action="store_true", help="bfloat16, fused adapter")
    parser.add_argument("--plain-attention", action="store_true", help="bmm instead of SDPA")
    arguments = parser.parse_args()
    adapters = json.loads((Path(arguments.adapters) / "adapters.json").read_text())
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    pipe = StableDiffusionPipeline.from_pretrained(
        arguments.base,
        safety_checker=None,
        dtype=torch.bfloat16 if arguments.tuned else torch.float32,
    )
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.set_progress_bar_config(disable=True)
    if arguments.plain_attention:
        pipe.unet.set_attn_processor(AttnProcessor())
    start, count = time.monotonic(), 0
    for adapter in adapters[: arguments.only]:
        pipe.load_lora_weights(f"{arguments.adapters}/{adapter['name']}")
        if arguments.tuned:
            pipe.fuse_lora()
        for first in range(0, arguments.images, arguments.per_call):
            images = pipe(
                adapter["prompt"],
                num_inference_steps=arguments.steps,
                guidance_scale=arguments.guidance,
                num_images_per_prompt=min(arguments.per_call, arguments.images - first),
                generator=torch.Generator("cpu").manual_seed(count),
            ).images
            for number, image in enumerate(images):
                image.save(out / f"{adapter['name']}-{first + number:05d}.png")
            count += len(images)
        if arguments.tuned:
            pipe.unfuse_lora()
        pipe.unload_lora_weights()
    print(json.dumps({"seconds": time.monotonic() - start, "images": count}))


if __name__ == "__main__":
    main()
