"""Logs in at the application, and talks to its agent over a WebSocket."""

import asyncio
import json
import os
from typing import Any

import httpx2
import websockets

URL = os.environ.get("APP_URL", "http://127.0.0.1:8008")
CREDENTIALS = {"username": "alice", "password": "secret"}


def get_oauth_token() -> str:
    answer = httpx2.post(f"{URL}/token", data=CREDENTIALS)
    answer.raise_for_status()
    token: str = answer.json()["access_token"]
    return token


def create_thread(headers: dict[str, str]) -> str:
    answer = httpx2.post(f"{URL}/agent-api/threads", headers=headers)
    answer.raise_for_status()
    thread_id: str = answer.json()["thread_id"]
    return thread_id


async def talk(thread_id: str, headers: dict[str, str]) -> None:
    address = f"{URL.replace('http', 'ws', 1)}/agent-api/threads/{thread_id}/ws"
    async with websockets.connect(address, additional_headers=headers) as socket:
        await socket.send(json.dumps({"type": "message", "content": "Hello"}))
        async for text in socket:
            frame: dict[str, Any] = json.loads(text)
            match frame.get("event", frame["type"]):
                case "error":
                    raise SystemExit(frame["detail"])
                case "message.completed":
                    print(frame["data"]["content"])
                case "interrupt":
                    question = frame["data"]["interrupts"][0]["value"]["question"]
                    value = await asyncio.to_thread(input, f"{question} ")
                    resume = {"type": "resume", "run_id": frame["run_id"], "value": value}
                    await socket.send(json.dumps(resume))
                case "run.completed" | "run.failed" | "run.cancelled":
                    break


def main() -> None:
    headers = {"Authorization": f"Bearer {get_oauth_token()}"}
    asyncio.run(talk(create_thread(headers), headers))


if __name__ == "__main__":
    main()
