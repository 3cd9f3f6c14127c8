"""The command `agentflow`, also as `python -m agentflow_server`."""

from agentflow_server.cli import app


def main() -> None:
    app(prog_name="agentflow")


if __name__ == "__main__":
    main()
