"""The search for the nearest speakers: in this process's memory, or on the PostgreSQL server."""
