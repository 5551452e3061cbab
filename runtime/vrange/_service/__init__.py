"""Caches that the processes of a service share."""
