"""Head objectives, one file each; the file's name is what a `HeadSpec` calls it.

A configuration may name them, so torch and scikit-learn are imported where a head is fitted.
"""
