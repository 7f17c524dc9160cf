"""This machine as a part of a Ray cluster: `make cluster-head` and `make cluster-join`. It is no stage.

Both stay in the foreground, and Ctrl-C ends this machine's part. `make grid CLUSTER=<host>:<port>` then sends its runs
there (docs/scale.md). Whoever reaches Ray's ports and has the token can run any program here, so token authentication
is always on. The token is a file that only its owner can read. It is sent in clear text: use a trusted network.
"""

import argparse
import hashlib
import importlib
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stages.common.errors import ExpectedError, run_program
from stages.common.process import ancestor, end_with
from stages.experiments.git import git, require_full_clone
from stages.training.machine import cores, processor

TOKEN = Path(".cluster/token")
REQUIREMENTS = Path("requirements.txt")
PORT = 6399  # below 10002, where Ray's workers begin
OBJECT_STORE_BYTES = 100 * 2**20  # nothing is kept there
CONNECT_SECONDS = 5.0
END_SECONDS = 15.0  # for Ray to tell the others and end
KEPT_LINES = 60
LONGEST_REASON = 300  # characters
STARTED = "Ray runtime started"
INSTALL = "pip install -r requirements-cluster.txt"


def main() -> None:
    options = arguments()
    end_with(ancestor("make"))
    if options.part == "head":
        make_token()
        head(options.port)
    else:
        join(options.head, cores() if options.cpus is None else options.cpus, options.name)


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m stages.tools.cluster", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("head", help="start a cluster; the head itself runs nothing")
    part.add_argument("--port", type=int, default=PORT)
    part = parts.add_parser("join", help="let this machine run runs of a cluster")
    part.add_argument("head", help="the head's host:port")
    part.add_argument("--cpus", type=int, help="cores for runs; 0 for a machine that only starts grids; default: all")
    part.add_argument("--name", default=socket.gethostname(), help="what the grid calls this machine")
    return parser.parse_args()


def head(port: int) -> None:
    """Start a cluster, and stay until it ends."""
    with ray_start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false") as process:
        host = load_ray().util.get_node_ip_address()
        print(f"the head is up. On each machine, in a clone of the same repository with this {TOKEN}:", flush=True)
        print(f"    make cluster-join HEAD={host}:{port}", flush=True)
        print("then, on one of them:", flush=True)
        print(f"    make grid CLUSTER={host}:{port}", flush=True)
        process.communicate()
    raise ExpectedError("Ray has ended; make cluster-head starts it again, and the machines have to join again")


def join(address: str, cpus: int, name: str) -> None:
    """Let this machine run runs, and stay until Ctrl-C or the end of the cluster.

    Raises:
        ExpectedError: It cannot join, or the cluster has ended.
    """
    check_reachable(address)
    check_clone()
    labels = ",".join(f"{key}={value}" for key, value in facts().items())
    shown = ["--num-cpus", str(cpus), "--node-name", name, "--labels", labels]
    own = {"CLUSTER_CLONE": str(Path.cwd()), "CLUSTER_MACHINE": name}
    if archive := os.environ.get("CIFAR10_ARCHIVE"):
        own["CIFAR10_ARCHIVE"] = str(Path(archive).absolute())  # runs work in other folders
    with ray_start(f"--address={address}", *shown, **own) as process:
        print(f"{name} has joined {address} with {cpus} cores; Ctrl-C leaves", flush=True)
        process.communicate()
    raise ExpectedError(f"the cluster at {address} has ended; make cluster-join joins it again")


def check_clone() -> None:
    """Stop if each run would fail here at its end.

    Raises:
        ExpectedError: The clone is shallow, or git may not push without asking for a password.
    """
    require_full_clone()
    silent = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")}
    git("push", "--quiet", "--dry-run", "origin", "HEAD:refs/cluster/join", **silent)


@contextmanager
def ray_start(*options: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """Ray's processes of this machine, started; they end with the context.

    Raises:
        ExpectedError: They do not start.
    """
    load_ray()
    folder = tempfile.mkdtemp(prefix="ray-")  # closed to others; Ray opens its own, of sockets and logs, to all users
    common = ["--disable-usage-stats", f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={folder}/ray"]
    common += ["--include-log-monitor=false", "--no-monitor"]  # nobody reads Ray's logs elsewhere; nothing is rented
    own = {"PYTHONUNBUFFERED": "1", "RAY_worker_niceness": "0"}  # not 15: runs have the priority that they have here
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *common, "--block"],
        env=os.environ | own | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # all of Ray's processes are then one group
    )
    try:
        assert process.stdout is not None
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        for line in process.stdout:
            lines.append(line.strip())
            if STARTED in line:
                break
        else:
            raise ExpectedError(why_not("\n".join(lines)))
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def why_not(text: str) -> str:
    """One line on why Ray does not start or connect, from what it says."""
    if "AuthenticationError" in text or "Unauthenticated" in text:
        return f"the head has another token; copy its {TOKEN} to this place"
    if mismatch := re.search(r"Version mismatch.*", text, re.DOTALL):
        return " ".join(mismatch[0].split())[:LONGEST_REASON]
    lines = [line for line in text.splitlines() if line.strip()]
    return f"Ray does not start: {lines[-1][:LONGEST_REASON] if lines else 'it says nothing'}"


def check_reachable(address: str) -> None:
    """Stop if nothing answers there: Ray would try for minutes.

    Raises:
        ExpectedError: The address is no host:port, or nothing answers.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ExpectedError(f"{address!r} is no address of a head; allowed: host:port, as make cluster-head prints it")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ExpectedError(f"no head answers at {address} ({error}); make cluster-head starts one") from None


def load_ray() -> Any:
    """Ray, with token authentication and without usage statistics.

    Raises:
        ExpectedError: It is not installed, or there is no token that only this user can read.
    """
    try:
        permissions = TOKEN.stat().st_mode
    except FileNotFoundError:
        raise ExpectedError(f"{TOKEN} is missing; copy it from the head, and chmod 600 it") from None
    if permissions & (stat.S_IRWXG | stat.S_IRWXO):
        raise ExpectedError(f"others can read {TOKEN}; chmod 600 {TOKEN}, and make a new one if they may have read it")
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would be used instead of the file
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(TOKEN.absolute())
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or a call after its end would start a cluster on this machine
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ExpectedError(f"Ray is not installed ({error}); {INSTALL}") from None


def make_token() -> None:
    """Make a token, if there is none yet."""
    TOKEN.parent.mkdir(mode=0o700, exist_ok=True)
    if not TOKEN.exists():
        with os.fdopen(os.open(TOKEN, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))


def facts() -> dict[str, str]:
    """What of this machine changes numbers, as labels of Ray (letters, digits, `-`, `_` and `.`; at most 63)."""
    listing = "\n".join(f"{name}=={number}" for name, number in packages().items())
    return {
        "packages": hashlib.sha256(listing.encode()).hexdigest()[:12],
        "processor": _label(processor()),
        "gpu": _label(gpu()),
    }


def packages() -> dict[str, str]:
    """The installed versions of the packages that requirements.txt names."""
    found = {}
    for name in re.findall(r"^([\w.-]+)==", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def gpu() -> str:
    """The name of the first GPU, or "none"."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none"
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    listing = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603
    return listing.stdout.partition("\n")[0].strip() if listing.returncode == 0 else "none"


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:63].strip("-.") or "none"


if __name__ == "__main__":
    run_program("cluster", main)
