"""The data sets that are read, one file each, called as their files."""
