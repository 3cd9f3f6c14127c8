"""What an adapter raises when its graph waits for a human."""


class AgentInterrupted(Exception):
    """The graph stopped to ask somebody: its turn has not ended, and nobody can answer it yet."""
