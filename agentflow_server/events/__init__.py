"""How readers of a run learn that something was stored."""
