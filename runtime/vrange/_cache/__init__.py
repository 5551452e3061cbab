"""The cache: its index, its values, and the functions that it decorates."""
