"""Ray job: up to stage `finetune` (one adapter per group-cluster)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="finetune")
