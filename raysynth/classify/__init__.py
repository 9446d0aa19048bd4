"""The method's own classifier: the search's winner trained again, measured, shipped."""
