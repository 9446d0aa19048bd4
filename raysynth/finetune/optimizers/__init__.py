"""Optimizers of fine-tuning, a file each; see `raysynth.finetune.optimizer`."""
