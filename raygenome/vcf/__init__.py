"""Reading variant files: VCF text and BCF to batches of site columns."""
