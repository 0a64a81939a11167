"""Nothing that a leash holds outlives whoever holds the leash."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.core import leash
from stages.core.running.sources import ROOT

pytestmark = pytest.mark.slow  # processes that wait for each other
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
HOLDER = """
import os, sys
from pathlib import Path
from flows.core import leash
with leash.leashed(["sleep", "60"], Path("."), os.environ) as process:
    while not (children := psutil.Process(process.pid).children()):
        time.sleep(0.01)
    print(process.pid, children[0].pid, flush=True)
    process.wait()
"""


def holder() -> tuple["subprocess.Popen[str]", psutil.Process, psutil.Process]:
    """A process that holds a leash, the process between, and `sleep`."""
    code = "import psutil, time" + HOLDER
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    between, sleep = map(int, process.stdout.readline().split())
    process.stdout.close()
    return process, psutil.Process(between), psutil.Process(sleep)


def ends(process: psutil.Process, within: float = 3) -> bool:
    try:
        process.wait(within)
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_says_what_it_says_and_ends_as_it_ends(tmp_path: Path, status: int) -> None:
    command = ["sh", "-c", f"pwd; echo $WORD >&2; exit {status}"]
    with leash.leashed(command, tmp_path, os.environ | {"WORD": "hello"}) as process:
        assert process.stdout
        assert process.stdout.read().split() == [str(tmp_path), "hello"]
        assert process.wait() == status


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    with leash.leashed(["sh", "-c", "sleep 60 & echo $!"], tmp_path, os.environ) as process:
        assert process.stdout
        orphan = psutil.Process(int(process.stdout.readline()))
        assert process.wait() == 0
    assert ends(orphan)


def test_a_lock_that_is_handed_down_reaches_the_command(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    code = f"import os; os.write({writing}, b'down')"
    with leash.leashed([sys.executable, "-c", code], tmp_path, os.environ, [writing]) as process:
        process.wait()
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read() == "down"


@pytest.mark.parametrize("victim", [lambda holder, between: holder, lambda holder, between: between])
def test_killing_the_holder_or_the_leash_ends_the_command(victim: Callable[..., psutil.Process]) -> None:
    process, between, sleep = holder()
    victim(psutil.Process(process.pid), between).kill()
    assert ends(sleep)
    assert ends(between)
    process.wait(5)


def test_leaving_ends_the_command(tmp_path: Path) -> None:
    with leash.leashed(["sh", "-c", "echo $$; sleep 60"], tmp_path, os.environ) as process:
        assert process.stdout
        shell = psutil.Process(int(process.stdout.readline()))
    assert ends(shell, 0.5)


def test_who_does_not_hear_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    with leash.leashed([sys.executable, "-c", DEAF], tmp_path, os.environ) as process:
        assert process.stdout
        process.stdout.readline()
        [deaf] = psutil.Process(process.pid).children()
    assert ends(deaf, 0.5)
    assert leash.PATIENCE <= time.monotonic() - began < leash.PATIENCE + leash.AFTER


MISSES = """
import subprocess, sys
told = subprocess.Popen([sys.executable, "-c", '''
import signal, sys, time
from flows.core import leash
def say(*_):
    print("a broken pipe breaks nothing", flush=True)
    open(sys.argv[1], "w").write("asked")
    sys.exit()
signal.signal(signal.SIGTERM, say)
leash.end_with_starter()
print("there", flush=True)
time.sleep(60)
''', sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(told.stdout.readline(), told.pid, flush=True)
sys.stdin.read()
"""


def test_what_has_lost_its_starter_is_asked_to_end_and_can_still_act(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MISSES, str(tmp_path / "said")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
        assert starter.stdout
        assert starter.stdout.readline()
        orphan = psutil.Process(int(starter.stdout.readline()))
        assert not ends(orphan, 1.5)
        starter.kill()
    assert ends(orphan)
    assert (tmp_path / "said").read_text() == "asked"
