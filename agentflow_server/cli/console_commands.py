"""The commands for those who talk with an agent, and their options."""

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        help="The server; default: $AGENTFLOW_URL, else http://127.0.0.1:8000.",
        show_default=False,
    ),
]


def chat(
    *,
    url: Url = None,
    thread: Annotated[
        str | None, typer.Option(help="Go on with this thread; default: a new one.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help="Who answers; default: the server's default agent.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Log in as this user first, unless that is done.")
    ] = None,
) -> None:
    """Talk with an agent at the terminal; or send stdin as one message and print the answer."""
    from agentflow_server.cli.console import chat  # noqa: PLC0415

    chat(url, thread=thread, agent=agent, user=user)


def login(
    *,
    url: Url = None,
    user: Annotated[str | None, typer.Option(help="The username; else it is asked for.")] = None,
    totp: Annotated[
        bool, typer.Option("--totp", help="Ask for the one-time code of a second factor, too.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin: one line.")
    ] = False,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read a token or an API key from stdin instead.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="Log in on the server's page in your browser.")
    ] = False,
    token_url: Annotated[
        str | None,
        typer.Option(help="The token endpoint of another login server; default: URL/token."),
    ] = None,
    client_id: Annotated[
        str, typer.Option(help="How the login server knows this program.")
    ] = "agentflow",
) -> None:
    """Log in at a server; `chat` and `whoami` use the session, which renews itself."""
    from agentflow_server.cli.console import Way, log_in  # noqa: PLC0415

    ways = {
        "--token-stdin": token_stdin,
        "--password-stdin": password_stdin,
        "--browser": browser,
    }
    chosen = [name for name, is_chosen in ways.items() if is_chosen]
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(chosen)} exclude each other")
    way = Way(
        user=user,
        totp=totp,
        password_stdin=password_stdin,
        token_stdin=token_stdin,
        browser=browser,
        token_url=token_url,
        client_id=client_id,
    )
    log_in(url, way)


def logout(*, url: Url = None) -> None:
    """Give the session with a server back, and forget it."""
    from agentflow_server.cli.console import log_out  # noqa: PLC0415

    log_out(url)


def whoami(*, url: Url = None) -> None:
    """Print who the server says that you are."""
    from agentflow_server.cli.console import show_identity  # noqa: PLC0415

    show_identity(url)
