"""Deep calls, and stacks that are given back."""
