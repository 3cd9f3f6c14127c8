"""A LangGraph agent whose tools depend on the caller's roles."""

import re
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def find_order(order_id: str) -> str:
    """The state of an order."""
    return f"Order {order_id} was delivered."


@tool
def refund_order(order_id: str) -> str:
    """Pay an order back."""
    return f"Order {order_id} was refunded."


TOOLS_BY_ROLE: dict[str, list[BaseTool]] = {
    "support": [find_order],
    "billing": [refund_order],
}


def tools_for(config: RunnableConfig) -> dict[str, BaseTool]:
    """What TeamAuth returned is in the config: no client can add a role to it."""
    roles = config["configurable"].get("roles", [])
    return {tool.name: tool for role in roles for tool in TOOLS_BY_ROLE.get(role, [])}


def think(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
    """Plays the model, which would be offered these tools and no others."""
    message = state["messages"][-1]
    order = re.search(r"\b[A-Z]-\d+\b", message.text)
    if message.type == "tool" or not order:
        answer = AIMessage(message.text if message.type == "tool" else "Which order?")
        return {"messages": [answer]}
    wanted = "refund_order" if "refund" in message.text.lower() else "find_order"
    if wanted not in tools_for(config):
        return {"messages": [AIMessage(f"You may not use {wanted}.")]}
    call = {"name": wanted, "args": {"order_id": order[0]}, "id": f"call_{message.id}"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


async def use_tools(state: MessagesState, config: RunnableConfig) -> Any:
    """Whatever a model asks for, a tool that the caller may not use is not there."""
    return await ToolNode(list(tools_for(config).values())).ainvoke(state, config)


graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", use_tools)
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")
app = graph.compile()
