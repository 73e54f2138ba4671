"""Who may call, and how often: API keys, guesses at a speaker, answers kept for retries, requests by key."""
