"""Networks that others published, by name: fetched, read with nothing run, and put into a graph of ours."""
