"""What every echo answers, whatever framework it is written with."""


def answers_to(content: str) -> list[str]:
    """Sent "fill N", an echo makes its new thread N messages long in one turn."""
    word, _, number = content.partition(" ")
    if word == "fill":
        return [f"You said: {n}" for n in range(int(number) - 1)]
    return [f"You said: {content}"]
