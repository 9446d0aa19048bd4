"""Methods x severities x seeds as one experiment: cells, their runs on Ray, the table, the plot."""
