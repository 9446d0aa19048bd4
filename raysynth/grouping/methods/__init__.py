"""The ways of grouping that there are, one file each, called as their files."""
