"""A host: namespaces of its own for network, processes, mounts and name, joined to the others by a switch.

Its first process holds them all, and dies with the one that started it: then the kernel ends every process of the
host and takes its mounts and its network away. So nothing outlives a test, however that ends, and `crash` is what a
power cut is: everything gone at once, and what was on the disk still there.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

BINARIES = ("ip", "unshare", "nsenter", "setpriv", "sshd", "git")
PACKAGES = "iproute2 util-linux git openssh-server postgresql"
BIN = Path(sys.executable).parent
PATH = f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 180.0  # a busy machine is slow, not broken
FIRST = "import signal as s; s.signal(s.SIGCHLD, s.SIG_IGN); s.pause()"  # so that orphans leave no zombies


@dataclass
class Program:
    """Something that runs on a host until it is ended; what it says is in `log`."""

    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def process(self) -> psutil.Process:
        """The program itself: `nsenter`, which was started, waits beside it outside the host."""
        return wait(lambda: psutil.Process(self.popen.pid).children(), f"{self.log.stem} has not begun")[0]

    @property
    def runs(self) -> bool:
        return self.popen.poll() is None

    def ask(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.runs:
            self.process.send_signal(number)

    def end(self) -> int:
        self.ask()
        return self.popen.wait(PATIENCE)

    def kill(self) -> int:
        self.ask(signal.SIGKILL)
        return self.popen.wait(PATIENCE)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Host:
    name: str
    address: str
    home: Path
    logs: Path
    environment: Mapping[str, str]
    setup: str = ""
    first: "subprocess.Popen[bytes] | None" = None
    programs: list[Program] = field(default_factory=list)

    def boot(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        begin = f"set -e; hostname {self.name}; ip link set lo up; {self.setup} echo"
        script = f'{begin}; exec {sys.executable} -S -c "{FIRST}"'
        spaces = ("--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc")
        tied = ("setpriv", "--pdeathsig", "KILL")
        with (self.logs / f"{self.name}.log").open("ab") as log:
            self.first = subprocess.Popen(
                [*tied, "unshare", *spaces, *tied, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.first.stdout
        if not self.first.stdout.readline():
            raise RuntimeError(f"host {self.name} does not start: {(self.logs / f'{self.name}.log').read_text()}")

    @property
    def init(self) -> int:
        """The process that all others of the host descend from."""
        assert self.first
        return psutil.Process(self.first.pid).children()[0].pid

    @property
    def up(self) -> bool:
        return self.first is not None and self.first.poll() is None

    def crash(self) -> None:
        """Every process of it is killed at once."""
        if self.first and self.up:
            os.kill(self.init, signal.SIGKILL)
            self.first.wait(PATIENCE)
        if self.first and self.first.stdout:
            self.first.stdout.close()
        for program in self.programs:
            program.popen.wait(PATIENCE)
        self.programs.clear()

    def start(self, label: str, *words: str, cwd: Path | None = None, **environment: str) -> Program:
        log = self.logs / f"{self.name}-{label}.log"
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                self.enter(words, cwd, **environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.programs.append(Program(popen, log))
        return self.programs[-1]

    def run(
        self, *words: str, cwd: Path | None = None, check: bool = True, timeout: float = 300, **environment: str
    ) -> str:
        """What it says on both streams."""
        with subprocess.Popen(
            self.enter(words, cwd, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as popen:
            try:
                said, _ = popen.communicate(timeout=timeout)
            except BaseException:
                for process in psutil.Process(popen.pid).children(recursive=True):
                    process.kill()
                raise
        if check and popen.returncode:
            raise RuntimeError(f"{self.name}: {shlex.join(words)} ended with {popen.returncode}:\n{said[-4000:]}")
        return said.strip()

    def enter(self, words: Sequence[str], cwd: Path | None = None, **environment: str) -> list[str]:
        """The command that has a command run on this host."""
        everything = {**self.environment, **environment}
        pairs = [f"{name}={value}" for name, value in everything.items()]
        where = ["nsenter", "--target", str(self.init), "--all", f"--wd={cwd or self.home}"]
        return [*where, "env", "-i", *pairs, *words]

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of this host whose command has all these words in it, the oldest first."""
        if not self.up:
            return []
        init, found = self.init, []
        space = os.readlink(f"/proc/{init}/ns/pid")
        for process in psutil.process_iter():
            try:
                if process.pid == init or os.readlink(f"/proc/{process.pid}/ns/pid") != space:
                    continue
                command = " ".join(process.cmdline())
                if process.status() != psutil.STATUS_ZOMBIE and all(word in command for word in words):
                    found.append(process)
            except (psutil.NoSuchProcess, OSError):
                continue
        return sorted(found, key=lambda process: process.create_time())

    def kill(self, *words: str) -> list[psutil.Process]:
        """kill -9 of those, and of nothing that they started."""
        found = self.processes(*words)
        for process in found:
            process.kill()
        psutil.wait_procs(found, PATIENCE)
        return found


def wait(condition: Callable[[], Any], otherwise: str, timeout: float = PATIENCE, every: float = 0.05) -> Any:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(every)
    raise TimeoutError(f"after {timeout:g} s: {otherwise}")


def lacking() -> str:
    """Why there can be no hosts on this machine, if so."""
    if sys.platform != "linux" or os.geteuid():
        return "hosts are network namespaces of Linux, which only root may make"
    if absent := [name for name in BINARIES if not shutil.which(name, path=PATH)]:
        return f"no {', '.join(absent)}: apt-get install {PACKAGES}"
    return ""
