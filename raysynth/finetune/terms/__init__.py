"""Terms of the loss, one file each; see `raysynth.finetune.term`."""
