"""The store on PostgreSQL with pgvector: its tables, its connections, and its search."""
