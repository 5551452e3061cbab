"""Grafana dashboards, and the code that writes them: `python -m dashboards [--check]`."""
