"""Scoring: from a VCF and options to a finished run directory."""
