"""Tells the runner of WASI's test suite how Wakebox is called."""
import os
import subprocess
from pathlib import Path
from typing import Dict, List, Optional, Tuple

WAKEBOX = os.getenv("WAKEBOX", "wakebox")
HERE = ["127.0.0.1", "[::1]"]


def get_name() -> str:
    return "wakebox"


def get_version() -> str:
    said = subprocess.run([WAKEBOX, "--version"], encoding="UTF-8", capture_output=True, check=True)
    return said.stdout.split()[-1]


def get_wasi_versions() -> List[str]:
    return ["wasm32-wasip1", "wasm32-wasip3"]


def get_wasi_worlds() -> List[str]:
    return ["wasi:cli/command", "wasi:http/service"]


def compute_argv(test_path: str,
                 args_env_root: Tuple[List[str], Dict[str, str], Optional[str]],
                 proposals: List[str], wasi_world: str, wasi_version: str) -> List[str]:
    args, env, root = args_env_root
    argv = [WAKEBOX, "run", test_path, "--mem", "64M"]
    if wasi_world == "wasi:http/service":
        # It is ended by an interrupt, which is to be no error.
        argv = [str(Path(__file__).with_name("serve.sh")), WAKEBOX, "serve", test_path]
        argv += ["--mem", "64M", "--allow-listen", "127.0.0.1:0"]
    for name, value in env.items():
        argv += ["--env", f"{name}={value}"]
    if root:
        argv += ["--dir", f"{root}:/:links"]
    if proposals:
        for to in HERE + ["nonexistent.invalid"]:
            argv += ["--allow-connect", to]
    if "sockets" in proposals:
        for at in HERE + ["0.0.0.0", "[::]"]:
            argv += ["--allow-listen", f"{at}:0", "--allow-udp-bind", f"{at}:0"]
        for to in HERE:
            argv += ["--allow-udp", to]
    return argv + (["--"] + args if args else [])
