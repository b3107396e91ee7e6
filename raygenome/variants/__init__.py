"""Variants: reading VCF and BCF, choosing regions, and deciding what can be scored."""
