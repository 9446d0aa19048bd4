"""Files on any filesystem, and the Parquet tables in them."""
