"""What a run leaves, how it is written, ranked, asked and verified."""
