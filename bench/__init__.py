"""What is measured, one module each: its `run()` prints a table, or returns rows (dataclasses) for one to be printed.

Machines are noisy and differ, so a figure stands beside a yardstick that was measured in the same run, as a ratio.
A module's docstring begins with what it measures.
"""
