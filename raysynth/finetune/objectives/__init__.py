"""The objectives of fine-tuning, one file each; see `raysynth.finetune.objective`."""
