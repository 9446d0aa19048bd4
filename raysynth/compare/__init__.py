"""Finished runs beside each other: a table of all, a few in detail, the page of one."""
