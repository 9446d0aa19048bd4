"""Base models: loading, and the embedded tiny base."""
