"""Ranking: the order of variants over all targets, and the strongest variants of each target."""
