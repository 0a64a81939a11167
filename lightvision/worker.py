"""`lightvision worker`: one Prefect worker for each GPU of this machine, so that a GPU has one job at a time.

They are watched: one that dies is started again, once nothing of it is left on its device; where the disk is nearly
full, nothing is asked for until there is room.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psutil
import pynvml

from lightvision.host import Host, take
from stages.core.running import devices, processes
from stages.core.running.errors import Refusal

GPU, CPU, COORDINATORS = "lightvision-gpu", "lightvision-cpu", "lightvision-coordinators"
AT_ONCE = 4  # coordinators wait more than they work
LOOK = 1.0  # seconds between two looks at the children
FIRST_PAUSE, LONGEST_PAUSE, SETTLED = 2.0, 60.0, 300.0  # seconds; one that lived so long has not failed to start
PATIENCE = 45.0  # seconds; Prefect kills a job 30 seconds after it asked it to end
PR_SET_PDEATHSIG = 1
BEARS_AN_ABSENT_SERVER = {  # seven tries, 2 + 4 + ... seconds apart, are more than four minutes
    "PREFECT_CLIENT_MAX_RETRIES": "7",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,504",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


@dataclass
class Place:
    """Where one worker can be: a GPU, or a share of the processors."""

    name: str
    pool: str
    limit: int
    environment: Mapping[str, str]
    lock: int
    device: str = ""
    child: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = 0.0
    waits: bool = False

    def free(self) -> bool:
        """Whether nothing is left on the device of a worker that died."""
        lock = take(Host.here().lock(self.device)) if self.device else None
        if lock is not None:
            os.close(lock)
        return not self.device or lock is not None


def add(commands: Any, name: str) -> None:
    parser = commands.add_parser(name, description=__doc__, allow_abbrev=False)
    parser.add_argument("--pool", default="", help=f"default: {GPU}, or {CPU} with --slots")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--devices", default="all", metavar="0,1", help="GPUs by number, or `all`, which is the default")
    kind.add_argument("--slots", type=int, metavar="N", help="N jobs at once on the processors, without a GPU")
    kind.add_argument("--coordinators", action="store_true", help="plan and watch the jobs of others")
    parser.set_defaults(run=run)


def run(pool: str, devices: str, slots: int | None, coordinators: bool) -> int:
    host = Host.here()
    if coordinators:
        places = [place(host, "coordinators", pool or COORDINATORS, AT_ONCE, 1)]
    elif slots is not None:
        if slots < 1:
            raise Refusal("--slots: at least 1")
        places = [place(host, f"cpu{number}", pool or CPU, 1, slots) for number in range(slots)]
    else:
        chosen = gpus(devices)
        places = [place(host, f"gpu{gpu}", pool or GPU, 1, len(chosen), gpu) for gpu in chosen]
    return Supervisor(host, places).run()


def gpus(asked: str) -> list[str]:
    """By the names that CUDA_VISIBLE_DEVICES takes."""
    seen = visible()
    if not seen:
        raise Refusal("no GPU is to be seen here: --slots N takes N jobs at once on the processors")
    chosen = seen if asked == "all" else [word.strip() for word in asked.split(",")]
    unknown = [word for word in chosen if word not in seen]
    if unknown or len(set(chosen)) != len(chosen):
        raise Refusal(f"--devices {asked}: each of {','.join(seen)} at most once")
    return chosen


def visible() -> list[str]:
    limited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if limited is not None:
        return [word.strip() for word in limited.split(",") if word.strip() not in ("", "-1")]
    try:
        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def place(host: Host, name: str, pool: str, limit: int, shared_by: int, gpu: str = "") -> Place:
    lock = take(host.lock(f"{name}.worker"))
    if lock is None:
        raise Refusal(f"another worker has {name} of this machine: end it first, or choose other --devices")
    environment = BEARS_AN_ABSENT_SERVER | {
        "CUDA_VISIBLE_DEVICES": gpu,
        "OMP_NUM_THREADS": str(max(1, processes.cores() // shared_by)),
    }
    device = f"{name}.device" if limit == 1 else ""
    if device:
        environment[devices.LOCK] = str(host.lock(device))
    return Place(name, pool, limit, environment, lock, device)


class Supervisor:
    def __init__(self, host: Host, places: Sequence[Place]) -> None:
        self._host, self._places = host, places
        self._full = self._ending = False

    def run(self) -> int:
        """Until it is told to end, in whatever way it was started: `nohup` and shells make their children deaf."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        while not self._ending:
            self._look_at_the_disk()
            for one in self._places:
                self._look_at(one)
            time.sleep(LOOK)
        self._stop(self._places)
        return 0

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True

    def _look_at_the_disk(self) -> None:
        full = self._host.is_full()
        if full != self._full:
            room = f"{self._host.free() / 1e9:.1f} GB free in {self._host.folder}"
            _say(f"{room}: no new work until there is more" if full else f"{room}: work goes on")
        self._full = full
        if full:
            self._stop([one for one in self._places if one.child and not psutil.Process(one.child.pid).children()])

    def _look_at(self, one: Place) -> None:
        now = time.monotonic()
        if one.child and one.child.poll() is not None:
            one.pause = FIRST_PAUSE if now - one.began > SETTLED else min(2 * one.pause, LONGEST_PAUSE)
            one.due = now + one.pause
            _say(f"{one.name}: the worker ended with status {one.child.returncode}; again in {one.pause:.0f} s")
            one.child = None
        if one.child or self._full or now < one.due:
            return
        if not one.free():
            if not one.waits:
                _say(f"{one.name}: something is still at work there; waiting for its end")
            one.waits = True
            return
        one.waits, one.began = False, now
        one.child = self._start(one)

    def _start(self, one: Place) -> "subprocess.Popen[bytes]":
        options = {
            "pool": one.pool,
            "type": "process",
            "limit": str(one.limit),
            "name": f"{self._host.name}-{one.name}",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", *words],
            env=os.environ | one.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a keyboard tells this process, which tells the others
            pass_fds=(one.lock,),
            preexec_fn=_end_with_starter,
        )

    def _stop(self, places: Sequence[Place]) -> None:
        """Jobs first, while their workers are held still: a job that is asked to end can tell the server so itself,
        while a worker that is asked to end kills it without a word. What does not heed that is killed."""
        children = [one.child for one in places if one.child]
        below = [process for child in children for process in _below(child.pid)]
        for number in (signal.SIGSTOP, signal.SIGTERM):
            for child in children:
                child.send_signal(number)
        _end(below)
        for child in children:
            child.send_signal(signal.SIGCONT)
        for child in children:
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for one in places:
            one.child = None


def _end(jobs: Sequence[psutil.Process]) -> None:
    """The process of each job ends what it has started."""
    end = time.monotonic() + PATIENCE
    for process in jobs:
        with suppress(psutil.NoSuchProcess):
            if process.parent() not in jobs:
                process.terminate()
    while any(map(_lives, jobs)) and time.monotonic() < end:
        time.sleep(LOOK / 10)
    for process in jobs:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end_with_starter() -> None:
    """Runs in the new process, before the command."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _say(line: str) -> None:
    print(f"lightvision worker: {line}", flush=True)
