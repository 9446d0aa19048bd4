"""What a run would do, need and be refused for, before it starts."""
