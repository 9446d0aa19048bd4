"""The adapters are those of fine-tuning's miniature room."""

from tests.finetune.conftest import room

__all__ = ["room"]
