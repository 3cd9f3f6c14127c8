"""The echo as a LangGraph graph: the same file for every server that takes one."""

from typing import Any

from answers import answers_to
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph


async def echo(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(text) for text in answers_to(state["messages"][-1].text)]}


builder = StateGraph(MessagesState)
builder.add_node("echo", echo)
builder.add_edge(START, "echo")
builder.add_edge("echo", END)
app = builder.compile()
