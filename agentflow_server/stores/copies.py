"""What every store of ours decides alike about copies of threads."""

from collections.abc import Mapping, Sequence

from agentflow_server.errors import NotFound, StoreUnavailable
from agentflow_server.models import CopyPoint, JsonObject, RunStatus, ThreadCopy, ThreadStatus

_THREAD_STATUS: Mapping[RunStatus, ThreadStatus] = {"error": "error", "timeout": "error"}


def select_runs(copy: ThreadCopy, point: CopyPoint | None) -> Sequence[tuple[str, str]]:
    """Those to be copied, with their new ids, in order. Raises NotFound."""
    runs = list(copy.runs.items())
    if point is None:
        return runs
    places = [n for n, (_, new) in enumerate(runs) if new == point.run_id]
    if not places:
        raise NotFound("There is no such checkpoint")
    return runs[: places[0] + (point.part != "nothing")]


def merge_metadata(metadata: JsonObject, changes: JsonObject) -> JsonObject:
    merged = metadata | changes
    return {k: v for k, v in merged.items() if not (v is None and k in changes)}


def status_of(last: RunStatus | None, *, waits: bool) -> ThreadStatus:
    """How a copy stands whose last run is as `last`."""
    if waits:
        return "interrupted"
    return "idle" if last is None else _THREAD_STATUS.get(last, "idle")


def copy_lost() -> StoreUnavailable:
    return StoreUnavailable("Another server has just started and cleaned up: try again")
