"""Small programs of a kind that people really run."""
