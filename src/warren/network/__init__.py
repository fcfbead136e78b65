"""One mesh as a value: addresses from names, and the network document that every machine reads."""
