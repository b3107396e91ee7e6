"""The genome: its letters, its contigs, its FASTA, and the windows that models see of it."""
