"""Fine-tuning: one Ray Train run per pack of group-clusters; objectives; adapter packing."""
