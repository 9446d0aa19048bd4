"""The trackers that there are, one file each, called as their files."""
