"""Selection rules, one file each, called as their file."""
