"""The scaling laws fitted to public tables and to this project's own runs."""
