"""A LangGraph agent with two tools: it looks up orders and calculates."""

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from model import choose_model
from tools import calculate, find_order

TOOLS = [find_order, calculate]
model = choose_model(TOOLS)


def think(state: MessagesState) -> dict[str, list[object]]:
    """One call of the model: it answers, or asks for a tool."""
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode(TOOLS))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")

# No checkpointer: the server gives the graph one, in its own database.
app = graph.compile()
