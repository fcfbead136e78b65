"""Real machines made of namespaces, on one box, over an underlay that can be cut."""
