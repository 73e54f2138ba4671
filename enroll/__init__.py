"""Stored speakers and their enrolments, templates and decisions.

The rooms inside: `db` keeps rows (SQLite or PostgreSQL), `secrets` seals them and logs what is done, `search`
finds the nearest speakers, `moving` takes a store elsewhere. What lies beside them is about people.
"""
