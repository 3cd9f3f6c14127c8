"""A caller on a WebSocket, from his admission to the end: commands come in, events go out."""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError

from agentflow_server.errors import (
    AgentflowError,
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    ServerStopping,
    TooManyRequests,
)
from agentflow_server.models import Answer, Principal, Run
from agentflow_server.runs.runner import Runner
from agentflow_server.web.door import Door
from agentflow_server.web.errors import SocketTimeout, describe
from agentflow_server.web.messages import SendMessage, turn_request
from agentflow_server.web.scopes import SCOPES
from agentflow_server.web.socket_frames import (
    ROUTES,
    CancelRun,
    FollowRun,
    Frame,
    ResumeRun,
    read_body,
    read_frame,
    receive_text,
    write_event,
    write_frame,
)
from agentflow_server.web.sockets import SocketRules
from agentflow_server.web.turns import find_webhook

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Follower:
    """Sends a run's events; `seen` is the number of the last one it has sent."""

    seen: int
    task: asyncio.Task[None] = field(init=False)


class Conversation:
    """`hold` it until the client leaves or `end` has a reason to close the socket."""

    def __init__(
        self,
        socket: WebSocket,
        thread_id: str,
        principal: Principal,
        end: asyncio.Future[AgentflowError],
    ) -> None:
        state = socket.app.state
        self._socket = socket
        self._thread_id = thread_id
        self._principal = principal
        self._end = end
        self._door: Door = state.door
        self._runner: Runner = state.runner
        self._rules: SocketRules = state.socket_rules
        self._runs_config = state.runs_config
        self._followers: dict[str, _Follower] = {}
        self._to_stop: dict[str, Run] = {}
        """Runs that nobody wants any more once this client has left."""

    async def hold(self) -> None:
        """Returns when the client has left; raises what the socket is to be closed with."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._stay())]
        try:
            ends: list[asyncio.Future[Any]] = [*tasks, self._end]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done():
                raise self._end.result()
            for task in tasks:
                if task.done():
                    await task
        except (ServerStopping, asyncio.CancelledError):
            self._to_stop.clear()  # it was not the client who left
            raise
        finally:
            tasks += [follower.task for follower in self._followers.values()]
            for task in tasks:
                task.cancel()
            # Not `gather`: it forgets by whom it was cancelled, which Starlette's test client asks.
            done, _ = await asyncio.wait(tasks)
            for task in done:
                task.cancelled() or task.exception()  # looked at: nobody else will
            for run in self._to_stop.values():
                self._runner.stop_later(self._principal, run)

    async def _stay(self) -> None:
        """Raises NotAuthenticated when the caller may not stay any longer."""
        expires_at = self._principal.expires_at
        while True:
            wait = self._rules.recheck_every
            if expires_at is not None:
                wait = min(wait, expires_at - time.time())
            if wait <= 0:
                self._door.dismiss(self._socket)
                raise NotAuthenticated("token expired", reason="expired")
            await asyncio.sleep(wait)
            await self._recheck()

    async def _recheck(self) -> None:
        try:
            await self._door.recheck(self._socket)
        except NotAuthenticated as error:
            raise NotAuthenticated("revoked", reason=error.reason) from error

    async def _read(self) -> None:
        rules = self._rules
        try:
            await self._send(write_frame("ready", thread_id=self._thread_id))
            while True:
                text = await receive_text(self._socket, within=rules.idle, limit=rules.max_bytes)
                if text is None:
                    return
                await self._answer(text)
        except WebSocketDisconnect:
            return

    async def _answer(self, text: str) -> None:
        """Do what a frame says; only what is wrong with the caller himself ends the socket."""
        frame_id: str | None = None
        try:
            frame = read_frame(text, depth=self._rules.json_depth)
            frame_id = frame.id
            await self._obey(frame)
        except (ServerStopping, SocketTimeout):
            raise
        except NotAuthenticated as error:
            raise NotAuthenticated("revoked", reason=error.reason) from error
        except (AgentflowError, RequestValidationError) as error:
            await self._send(write_frame("error", frame_id, **describe(self._socket, error)))

    async def _obey(self, frame: Frame) -> None:
        if frame.type in ROUTES:
            method, path = ROUTES[frame.type]
            await self._door.allow(
                self._socket,
                self._principal,
                action=SCOPES[method, path],
                route=f"{method} {path}",
            )
        match frame.type:
            case "message":
                await self._start(frame.id, read_body(SendMessage, frame))
            case "resume":
                await self._resume(frame.id, read_body(ResumeRun, frame))
            case "cancel":
                await self._cancel(frame.id, read_body(CancelRun, frame))
            case "follow":
                await self._find(frame.id, read_body(FollowRun, frame))
            case "ping":
                await self._send(write_frame("pong", frame.id))
            case "auth":
                raise Conflict("This socket is authenticated already")
            case _:
                known = ", ".join([*ROUTES, "ping"])
                raise InvalidRequest(f"type: expected one of {known}")

    async def _start(self, frame_id: str | None, body: SendMessage) -> None:
        wanted = turn_request(body, self._socket, self._runs_config)
        if not body.background:
            self._refuse_one_more()
        started = await self._runner.start(
            self._principal, self._thread_id, wanted, in_background=body.background
        )
        run = started.run
        if started.active is None:
            run = await self._runner.store.get_run(self._principal.id, self._thread_id, run.run_id)
        if body.on_disconnect == "cancel":
            self._to_stop[run.run_id] = run
        await self._accept(frame_id, run)
        if not body.background:
            self._follow(run, 0)

    async def _resume(self, frame_id: str | None, body: ResumeRun) -> None:
        if not body.background:
            self._refuse_one_more(body.run_id)
        answer = Answer(body.value, body.answers, find_webhook(self._socket, body))
        active = await self._runner.resume(self._principal, self._thread_id, body.run_id, answer)
        before = await self._unfollow(body.run_id)
        if body.on_disconnect == "cancel":
            self._to_stop[body.run_id] = active.run
        await self._accept(frame_id, active.run)
        if not body.background:
            self._follow(active.run, active.last_seq if before is None else before)

    async def _cancel(self, frame_id: str | None, body: CancelRun) -> None:
        run = await self._runner.stop(self._principal, self._thread_id, body.run_id, body.action)
        await self._accept(frame_id, run)

    async def _find(self, frame_id: str | None, body: FollowRun) -> None:
        self._refuse_one_more(body.run_id)
        store, after = self._runner.store, body.after
        run = await store.get_run(self._principal.id, self._thread_id, body.run_id)
        if after and not await store.list_events(body.run_id, after=after - 1, limit=1):
            raise InvalidRequest("after: this run has no such event")
        await self._unfollow(body.run_id)
        await self._accept(frame_id, run)
        self._follow(run, after)

    def _refuse_one_more(self, run_id: str | None = None) -> None:
        """Raises TooManyRequests."""
        others = self._followers.keys() - {run_id}
        if len(others) >= self._rules.followed_runs:
            raise TooManyRequests(retry_after=1)

    async def _accept(self, frame_id: str | None, run: Run) -> None:
        await self._send(write_frame("accepted", frame_id, run=run))

    def _follow(self, run: Run, after: int) -> None:
        self._followers[run.run_id] = follower = _Follower(after)
        follower.task = asyncio.create_task(self._tell(run, follower))

    async def _unfollow(self, run_id: str) -> int | None:
        """Up to which event the run was followed: who asks anew, or answers what it asked, is
        often quicker than the follower finds out that there is nothing more."""
        follower = self._followers.pop(run_id, None)
        if follower is None:
            return None
        follower.task.cancel()
        await asyncio.wait({follower.task})
        return follower.seen

    async def _tell(self, run: Run, follower: "_Follower") -> None:
        """Send the run's events until it ends or asks something."""
        try:
            async with aclosing(
                self._runner.follow(self._principal.id, run, after=follower.seen)
            ) as events:
                async for event in events:
                    if event is not None:
                        await self._send(write_event(event))
                        follower.seen = event.seq
            self._to_stop.pop(run.run_id, None)
        except WebSocketDisconnect:
            pass  # who reads finds out as well
        except AgentflowError as error:
            self._close_with(error)
        except Exception:  # the top of a background task
            log.exception("run %s cannot be followed any longer", run.run_id)
            self._close_with(AgentflowError())
        finally:
            if self._followers.get(run.run_id) is follower:
                del self._followers[run.run_id]

    def _close_with(self, error: AgentflowError) -> None:
        if not self._end.done():
            self._end.set_result(error)

    async def _send(self, text: str) -> None:
        """Raises WebSocketDisconnect, and SocketTimeout when the client does not read."""
        try:
            async with asyncio.timeout(self._rules.send_within):
                await self._socket.send({"type": "websocket.send", "text": text})
        except TimeoutError:
            raise SocketTimeout("the client reads too slowly") from None
