"""A service that makes thumbnails, and Prometheus watching it: `python -m examples.thumbnails`."""
