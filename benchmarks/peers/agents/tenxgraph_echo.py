"""The echo as a graph of 10xgraph, with the checkpointer that the variables name."""

import asyncio
import os

from answers import answers_to
from tenxgraph.core.graph import StateGraph
from tenxgraph.core.state import AgentState, Message
from tenxgraph.storage.checkpointer import BaseCheckpointer, PgCheckpointer, SqliteCheckpointer
from tenxgraph.utils import END


async def echo(state: AgentState) -> list[Message]:
    texts = answers_to(state.context[-1].text())
    return [Message.text_message(text, role="assistant") for text in texts]


def checkpointer() -> BaseCheckpointer:
    path = os.environ.get("CHECKPOINTS_SQLITE")
    if path:
        return SqliteCheckpointer(path)
    return PgCheckpointer(
        postgres_dsn=os.environ["CHECKPOINTS_POSTGRES"], redis_url=os.environ["CHECKPOINTS_REDIS"]
    )


builder = StateGraph()
builder.add_node("echo", echo)
builder.set_entry_point("echo")
builder.add_edge("echo", END)
saver = checkpointer()
app = builder.compile(checkpointer=saver)

if __name__ == "__main__":
    asyncio.run(saver.asetup())
