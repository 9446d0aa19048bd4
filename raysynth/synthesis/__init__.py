"""Specs to images to Parquet shards."""
