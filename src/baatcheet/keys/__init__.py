"""Providers' keys: where they are kept, which one is used next, how they fare, and replacing them."""
