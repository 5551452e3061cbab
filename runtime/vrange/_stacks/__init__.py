"""Deep calls, and stacks whose memory is returned."""
