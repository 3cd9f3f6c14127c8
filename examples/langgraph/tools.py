"""What the agent can do. The docstrings are what a model reads."""

import ast
import operator
from collections.abc import Callable

from langchain_core.tools import tool

ORDERS = {
    "A-17": "shipped, arrives on Friday",
    "B-4": "waiting for payment",
}

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@tool
def find_order(order_id: str) -> str:
    """The state of an order. Order ids look like A-17."""
    return f"Order {order_id}: {ORDERS.get(order_id, 'unknown')}."


@tool
def calculate(expression: str) -> str:
    """The value of an arithmetic expression with + - * / and brackets."""
    try:
        return f"{expression} = {_value(ast.parse(expression, mode='eval').body):g}"
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return f"{expression} cannot be calculated."


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(left), _value(right))
    raise ValueError("not arithmetic")
