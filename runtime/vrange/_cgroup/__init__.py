"""The memory limits of this process: every enclosing cgroup, and the machine."""
