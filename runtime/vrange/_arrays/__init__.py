"""Volatile arrays: blocks that are regenerated where they are touched."""
