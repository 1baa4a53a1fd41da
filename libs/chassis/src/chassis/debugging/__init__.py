"""What a process that runs is doing now: its tasks, its threads, its state, and where its time and memory go.

Functions, files and lines are told, and never a value: neither an argument nor a local variable.
"""
