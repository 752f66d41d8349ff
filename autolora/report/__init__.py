"""What people see of a study: the console, tables, plots, status."""
