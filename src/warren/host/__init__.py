"""This machine: the only code that speaks to its kernel, its programs and its files."""
