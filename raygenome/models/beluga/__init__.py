"""Beluga, the DeepSEA of 2018: 2,000 bp, 2,002 tracks."""
