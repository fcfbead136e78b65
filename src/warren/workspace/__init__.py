"""The operator's folder: the inventory file, the vars beside it, git; read whole, resolved to documents."""
