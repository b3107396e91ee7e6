"""Engines: ways to compute the same effects. `full` is the definition, others must equal it."""
