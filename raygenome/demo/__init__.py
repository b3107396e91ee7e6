"""The demo: a genome of known truth, and how well the ranking finds it."""
