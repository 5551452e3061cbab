"""Public reports of memory that stays in a process after it was freed, each as a small program."""
