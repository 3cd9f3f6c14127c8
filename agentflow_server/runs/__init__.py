"""Turns: from an accepted message to its stored answer."""
