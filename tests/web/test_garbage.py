"""What requests leave behind: a server that collects garbage all the time answers more slowly."""

import asyncio
import gc

from fastapi.requests import HTTPConnection


def count_requests():
    """Since the last `gc.freeze`."""
    return sum(issubclass(type(thing), HTTPConnection) for thing in gc.get_objects())


async def test_requests_leave_nothing_to_the_garbage_collector(serve, new_thread, as_user):
    client, headers = await serve(auth="jwt"), as_user()
    thread_id = await new_thread(client, headers=headers)
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        for stream in (False, True) * 5:
            body = {"content": "x", "stream": stream}
            await client.post(f"/threads/{thread_id}/messages", json=body, headers=headers)
            await client.get(f"/threads/{thread_id}/messages", headers=headers)
        # Some may still be held by their connections, and the last one longer.
        for _ in range(100):
            if count_requests() <= 1:
                break
            await asyncio.sleep(0.05)
        assert count_requests() <= 1
    finally:
        gc.unfreeze()
        gc.enable()
