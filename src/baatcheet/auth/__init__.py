"""Who is asking: users, API tokens, scopes, rate limits."""
