"""Where raygenome keeps models and caches on this machine."""

import os
from pathlib import Path

import platformdirs

_HOME = "RAYGENOME_HOME"


def home() -> Path:
    """Return the folder of models: $RAYGENOME_HOME, or the platform's data folder."""
    return Path(os.environ.get(_HOME) or platformdirs.user_data_dir("raygenome"))


def cache_dir() -> Path:
    """Return the folder of files that can be made or fetched again; it may not exist."""
    if os.environ.get(_HOME):
        return home() / "cache"
    return Path(platformdirs.user_cache_dir("raygenome"))
