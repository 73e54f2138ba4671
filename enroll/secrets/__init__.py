"""The keys of a store, what is sealed with them, and the audit log that is chained with one of them."""
