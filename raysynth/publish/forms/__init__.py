"""One file each: a layout of images that other tools read."""
