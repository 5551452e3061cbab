"""Small programs that somebody would really run."""
