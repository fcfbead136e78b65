"""A machine keeps itself as its documents say: observe, diff, perform, observe again."""
