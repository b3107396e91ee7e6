"""Training data: windows of sequence and their labels, packed, from peaks or published files."""
