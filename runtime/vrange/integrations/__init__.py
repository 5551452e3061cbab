"""Caches of other libraries that keep their values in vrange: one module for each library.

Each module imports its library, so import the one that you use: `vrange.integrations.django`.
"""
