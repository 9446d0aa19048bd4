"""The adapters are those of fine-tuning's miniature room."""

from tests.finetune.conftest import fresh_accelerate, room

__all__ = ["fresh_accelerate", "room"]
