"""The files of a scoring run: their names, how they are written, queried and verified."""
