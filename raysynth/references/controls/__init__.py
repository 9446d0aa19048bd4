"""Control rows, one file each, called as their file."""
