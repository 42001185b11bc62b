"""The OpenAI-compatible surface under `/v1`, translating to the services below."""
