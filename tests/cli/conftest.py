"""Projects in temporary folders, the command in this process, and the real one in its own."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import Result  # type: ignore[import-not-found,unused-ignore]
from typer.testing import CliRunner

import agentflow_server
from agentflow_server.cli import app

STRONG_SECRET = "kJ8vQ2mX9rT4wZ7yB1nC6dF3gH5sL0pA-eUiOqRtYx"
