"""Files on disk: written atomically, the append-only log, the cache."""
