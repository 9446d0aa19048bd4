"""References and mixtures, one file each, called as their file.

All are tuned alike: every weight decay and learning rate of `references`, every evaluation as a
stopping point, chosen by validation WGA alone.
"""
