"""Ray job: the whole pipeline, with the arguments of `raysynth run`.

RAY_AUTH_MODE=token ray job submit --working-dir . -- \
    python jobs/full_pipeline.py storage_path=/mnt/shared/runs dataset.severity=0.95
"""

from raysynth.cli import job

if __name__ == "__main__":
    job()
