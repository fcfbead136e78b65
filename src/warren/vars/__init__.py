"""Generated values, per machine and generator, on disk in the layout of clan repositories."""
