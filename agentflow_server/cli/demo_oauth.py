"""`agentflow demo-oauth`: a provider to try connections with, for this machine alone."""

import signal
import sys
from importlib.util import find_spec
from typing import Annotated

import typer


def demo_oauth(
    *,
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 5001,
    token_lifetime: Annotated[
        int, typer.Option(help="Seconds that an access token is good for.", min=1, max=86400)
    ] = 3600,
) -> None:
    """Run an OAuth provider for development, on this machine alone: anybody logs in as anybody."""
    import uvicorn  # noqa: PLC0415 – `agentflow --help` waits for none of these

    from agentflow_server.cli.failures import fail  # noqa: PLC0415
    from agentflow_server.cli.listening import bind, url_of  # noqa: PLC0415
    from agentflow_server.cli.logs import set_up_logs  # noqa: PLC0415
    from agentflow_server.config import is_loopback  # noqa: PLC0415

    if not is_loopback(host):
        raise typer.BadParameter(
            f"--host {host}: this provider knows no passwords, and listens on a loopback address only"
        )
    if not find_spec("authlib"):
        fail("demo-oauth: pip install 'agentflow-server[demo]'")
    from agentflow_server.demo import create_provider  # noqa: PLC0415

    set_up_logs("warning")
    sockets = bind(host, port)
    url = url_of(host, sockets, encrypted=False)
    app = create_provider(url, token_lifetime=token_lifetime)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            # The queries that an access log would print have codes in them.
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    for one in sockets:
        one.listen()  # whoever reads the address may come at once
    _announce(url)
    # uvicorn raises the signal again when it has finished: that is a clean end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.run(sockets=sockets)
    except KeyboardInterrupt:
        sys.exit(0)


def _announce(url: str) -> None:
    """`flush`: a pipe is not read at once otherwise."""
    print(
        "\nDemo OAuth provider, for development and tests only: anybody on this machine logs in\n"
        "as anybody, and everything is forgotten when it stops.\n\n"
        f"  URL        {url}\n"
        f"  Metadata   {url}/.well-known/openid-configuration\n\n"
        "Ctrl-C stops it.\n",
        flush=True,
    )
