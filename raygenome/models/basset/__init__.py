"""Basset: 600 bp, 164 DNase tracks."""
