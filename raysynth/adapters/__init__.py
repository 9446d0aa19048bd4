"""Adapters: grouped LoRA, its weights on disk, and banks that switch between them."""
