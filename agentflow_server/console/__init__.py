"""A conversation with an agent in the terminal, and the login that is kept for it."""
