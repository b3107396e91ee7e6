"""Where files lie: local folders, object stores, caches, and the bytes of an input."""
