"""A service that makes thumbnails, and a Prometheus for it: `python -m examples.thumbnails`."""
