"""What is counted, and how other processes read it."""
