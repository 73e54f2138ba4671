"""The database under a store: SQLite or PostgreSQL, their tables, transactions, locks and files."""
