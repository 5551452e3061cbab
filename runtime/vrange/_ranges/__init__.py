"""Arenas and ranges: the interface of the volatile ranges proposed for Linux in 2013."""
