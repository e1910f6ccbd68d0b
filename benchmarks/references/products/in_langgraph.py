"""The same answers in a graph of one node: `langgraph dev`, the in-memory server of LangGraph."""

from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

from benchmarks.agents import answer


class State(TypedDict):
    prompt: str


async def speak(state: State) -> State:
    write = get_stream_writer()
    async for text in answer(state["prompt"]):
        write({"type": "token", "text": text})
    return state


builder = StateGraph(State)
builder.add_node("speak", speak)
builder.add_edge(START, "speak")
builder.add_edge("speak", END)
graph = builder.compile()
