"""Progress of a command: bars for people, progress.json for programs."""
