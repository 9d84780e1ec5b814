"""A PostgreSQL server of the tests' own, in a folder of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSWORD = "a-secret-word"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").is_file()), None)


def _user() -> dict[str, Any]:
    """Whom the server runs as: it refuses to be root."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid}
    return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(programs: Path) -> Iterator[str]:
    """The URL of a server, without a database's name."""
    who, port = _user(), _free_port()
    # a folder that another user may enter, which those of pytest are not
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    data, word = folder / "data", folder / "word"
    data.mkdir(mode=0o700)
    word.write_text(PASSWORD)
    word.chmod(0o644)
    if who:
        os.chown(data, who["user"], who["group"])

    def run(*command: str) -> None:
        subprocess.run([str(programs / command[0]), *command[1:]], cwd="/", check=True, capture_output=True, **who)

    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=50"
    try:
        run("initdb", "-D", str(data), "-U", "pith", "-A", "scram-sha-256", f"--pwfile={word}", "--no-sync")
        run("pg_ctl", "start", "-w", "-D", str(data), "-o", options, "-l", str(data / "log"))
        try:
            yield f"postgresql://pith:{PASSWORD}@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "stop", "-w", "-D", str(data), "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
