"""DeepSEA of 2015: 1,000 bp, 919 tracks."""
