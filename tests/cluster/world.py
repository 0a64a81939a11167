"""Several hosts and a server, on one machine: what a cluster is, with everything real but the distance.

    python -m tests.cluster.world --gpus 2 --staffed

makes one, with pools, deployments and workers, says how it is used, and stays until Ctrl-C. The server has PostgreSQL,
Prefect's and MLflow's servers, and sshd, which gives git and DVC's remote over SFTP; each host has its own network,
processes, name, home and folder for LightVision, and sees those of no other. As root, with Debian's packages (see
hosts.PACKAGES).
"""

import argparse
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx

from stages.core.running.sources import ROOT
from tests.cluster import hosts, toy
from tests.cluster.hosts import BIN, PATH, Host, Program, wait

EVERYWHERE = "0.0.0.0"  # noqa: S104  of a network that ends at this machine
PREFECT, MLFLOW, SSH, SQL = 14200, 15000, 10022, 15432
SERVER_STARTS = 120.0  # seconds, most of them Prefect's migrations
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/nowhere"))
FIRST_WORKER = 11
PERSON = "person"


class World:
    """Use it as a context: `with World() as world`."""

    def __init__(self, *, gpus: int = 2, cpus: int = 1) -> None:
        self.gpus, self.cpus = gpus, cpus
        self.hosts: dict[str, Host] = {}
        self.services: dict[str, Program] = {}

    def __enter__(self) -> "World":
        self.folder = Path(tempfile.mkdtemp(prefix="lightvision-world-"))
        try:
            self.folder.chmod(0o755)  # PostgreSQL works under its own name
            for name in ("hosts", "logs", "watched", "etc"):
                (self.folder / name).mkdir()
            self._join()
            self._serve()
            for name in (PERSON, *(f"cpu{number}" for number in range(self.cpus))):
                self.add(name, CUDA_VISIBLE_DEVICES="")
            for number in range(self.gpus):
                self.add(f"gpu{number}", CUDA_VISIBLE_DEVICES="0")  # which only a stage that uses it would miss
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for host in [*self.hosts.values()][::-1]:
            host.crash()
        if hasattr(self, "switch"):
            self.switch.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def server(self) -> Host:
        return self.hosts["server"]

    @property
    def person(self) -> Host:
        return self.hosts[PERSON]

    @property
    def workers(self) -> list[Host]:
        return [host for name, host in self.hosts.items() if name not in ("server", PERSON)]

    @property
    def api(self) -> str:
        """As seen from outside of all hosts, too."""
        return f"http://{self.address(1)}:{PREFECT}/api"

    @property
    def mlflow(self) -> str:
        return f"http://{self.address(1)}:{MLFLOW}"

    @property
    def git(self) -> str:
        return f"ssh://root@server:{SSH}/srv/project.git"

    @property
    def remote(self) -> str:
        return f"ssh://root@server:{SSH}/srv/dvc"

    @property
    def storage(self) -> Path:
        """What `remote` is on the server's disk."""
        return self.server.home / "srv" / "dvc"

    @property
    def toy(self) -> toy.Watch:
        return toy.Watch(self.folder / "watched")

    def address(self, number: int) -> str:
        return f"10.{self.number}.0.{number}"

    def add(self, name: str, **environment: str) -> Host:
        """Another host, with keys for the server, ready to clone."""
        number = 1 if name == "server" else FIRST_WORKER + len(self.hosts)
        home = self.folder / "hosts" / name
        own = {
            "PATH": PATH,
            "HOME": str(home),
            "USER": "root",
            "LANG": "C.UTF-8",
            "TMPDIR": str(home / "tmp"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": f"http://server:{PREFECT}/api",
            "MLFLOW_TRACKING_URI": f"http://server:{MLFLOW}",
            "PREFECT_WORKER_QUERY_SECONDS": "2",  # in which it sees new work; 10 by itself
            "LIGHTVISION_MIN_FREE_GB": "0.02",
            "LIGHTVISION_REPOSITORY": self.git,
            **self.toy.environment,
            **environment,
        }
        host = Host(name, self.address(number), home, self.folder / "logs", own, self._setup(name))
        self.hosts[name] = host
        for folder in ("tmp", "var"):
            (home / folder).mkdir(parents=True)
        self._keys(home)
        self.boot(host)
        return host

    def boot(self, host: Host) -> None:
        """Also after a crash: the disk is as it was."""
        host.boot()
        port = f"to-{host.name}"[:15]
        ends = (("name", port, "netns", f"{self.switch.init}"), ("name", "eth0", "netns", f"{host.init}"))
        _shell("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def unplug(self, host: Host) -> None:
        self.switch.run("ip", "link", "set", f"to-{host.name}"[:15], "down")

    def plug(self, host: Host) -> None:
        self.switch.run("ip", "link", "set", f"to-{host.name}"[:15], "up")

    def _join(self) -> None:
        """A switch, which also has a cable to the machine itself; the first free network of 10.0.0.0/8."""
        self.switch = Host("switch", "", self.folder / "etc", self.folder / "logs", {"PATH": PATH})
        self.switch.boot()
        self.switch.run("ip", "link", "add", "br0", "type", "bridge")
        self.switch.run("ip", "link", "set", "br0", "up")
        taken = _shell("ip", "-o", "-4", "route")
        for number in range(77, 256):
            cable = f"lv-world-{number}"
            peer = ("peer", "name", "machine", "netns", str(self.switch.init))
            if (
                f"10.{number}." in taken
                or subprocess.run(["ip", "link", "add", cable, "type", "veth", *peer]).returncode
            ):
                continue
            self.number = number
            _shell("ip", "address", "add", f"{self.address(254)}/24", "dev", cable)
            _shell("ip", "link", "set", cable, "up")
            self.switch.run("ip", "link", "set", "machine", "master", "br0", "up")
            return
        raise RuntimeError("no free network in 10.0.0.0/8")

    def _setup(self, name: str) -> str:
        """Names, a home and temporary files of its own; the homes of others are not there."""
        etc, home = self.folder / "etc" / name, self.folder / "hosts" / name
        (etc / "own").mkdir(parents=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost {name}\n{self.address(1)} server\n")
        (etc / "passwd").write_text(
            "".join(
                f"root:x:0:0:root:{home}:/bin/sh\n" if line.startswith("root:") else line
                for line in Path("/etc/passwd").read_text().splitlines(keepends=True)
            )
        )
        lines = [
            f"mount --bind {etc}/hosts /etc/hosts",
            f"mount --bind {etc}/passwd /etc/passwd",
            f"mount --bind {home}/var /var/tmp",
            f"mount --bind {home} {etc}/own",
            f"mount -t tmpfs none {self.folder}/hosts",
            f"mkdir {home}",
            f"mount --bind {etc}/own {home}",
        ]
        if name == "server":
            (etc / "shadow").write_text("root:*:20000:0:99999:7:::\n")
            lines += [
                f"mount --bind {etc}/shadow /etc/shadow",
                f"mount --bind {home}/srv /srv",
                "mount -t tmpfs none /run",
                "mkdir /run/sshd",
            ]
        return "".join(f"{line}; " for line in lines)

    def _keys(self, home: Path) -> None:
        folder, shared = home / ".ssh", self.folder / "etc" / "keys"
        if not shared.exists():
            shared.mkdir()
            for name in ("host", "user"):
                _shell("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(shared / name))
        folder.mkdir(mode=0o700)
        for source, target in (("user", "id_ed25519"), ("user.pub", "authorized_keys"), ("host", "host_key")):
            shutil.copy(shared / source, folder / target)
            (folder / target).chmod(0o600)
        (folder / "known_hosts").write_text(f"[server]:{SSH} {(shared / 'host.pub').read_text()}")
        (home / ".gitconfig").write_text(
            f"[init]\ndefaultBranch = main\n[user]\nname = {home.name}\nemail = {home.name}@example.org\n"
        )

    def _serve(self) -> None:
        """All at once, since each waits more than it works."""
        srv = self.folder / "hosts" / "server" / "srv"
        srv.mkdir(parents=True)
        (srv / "dvc").mkdir()
        _shell("git", "init", "-q", "--bare", "-b", "main", str(srv / "project.git"))
        _shell("git", "-C", str(srv / "project.git"), "config", "core.logAllRefUpdates", "always")
        self.add("server")
        self.sshd()
        self.start_mlflow()
        self.start_postgres()
        self.start_prefect()
        self.ready("mlflow", f"{self.mlflow}/health")
        self.ready("prefect", f"{self.api}/health")

    def sshd(self) -> None:
        keys = self.server.home / ".ssh"
        settings = {
            "Port": SSH,
            "HostKey": keys / "host_key",
            "AuthorizedKeysFile": keys / "authorized_keys",
            "PidFile": "none",
            "PasswordAuthentication": "no",
            "StrictModes": "no",
            "UsePAM": "no",
            "UseDNS": "no",
            "MaxStartups": 200,
            "MaxSessions": 200,
            "Subsystem": "sftp internal-sftp",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        sshd = shutil.which("sshd", path=PATH) or "sshd"
        self.services["sshd"] = self.server.start("sshd", sshd, "-D", "-e", "-f", "/dev/null", *words)

    def start_postgres(self) -> None:
        data = self.server.home / "postgres"
        data.mkdir()
        shutil.chown(data, "postgres", "postgres")
        as_postgres = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        self.server.run(
            *as_postgres, f"{POSTGRES}/initdb", "--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", str(data),
            cwd=data,
        )  # fmt: skip
        options = (f"-cport={SQL}", "-cfsync=off", f"-cunix_socket_directories={data}", "-cmax_connections=200")
        postgres = (*as_postgres, f"{POSTGRES}/postgres", "-D", str(data), *options)
        self.services["postgres"] = self.server.start("postgres", *postgres, cwd=data)
        ask = (f"{POSTGRES}/psql", "-h", str(data), "-p", str(SQL), "-U", "postgres", "-c", "create database prefect")
        wait(lambda: "CREATE" in self.server.run(*ask, check=False), "PostgreSQL does not answer")

    def start_prefect(self) -> None:
        self.services["prefect"] = self.server.start(
            "prefect",
            *(f"{BIN}/prefect", "server", "start", "--host", EVERYWHERE, "--port", str(PREFECT)),
            PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://postgres@127.0.0.1:{SQL}/prefect",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
        )

    def start_mlflow(self) -> None:
        home, names = self.server.home, [f"{name}{port}" for name in ("server", self.address(1)) for port in ("", ":*")]
        self.services["mlflow"] = self.server.start(
            "mlflow",
            *(f"{BIN}/mlflow", "server", "--host", EVERYWHERE, "--port", str(MLFLOW), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{home}/mlflow.db"),
            *("--serve-artifacts", "--artifacts-destination", str(home / "artifacts")),
            *("--allowed-hosts", ",".join(names)),
            *("--cors-allowed-origins", f"http://server:{MLFLOW},{self.mlflow}"),  # a browser's own questions, too
        )

    def ready(self, name: str, address: str) -> None:
        def answers() -> bool:
            program = self.services[name]
            if not program.runs:
                raise RuntimeError(f"{name} ended:\n{program.said[-4000:]}")
            with suppress(httpx.HTTPError):
                return httpx.get(address, timeout=5).status_code == 200
            return False

        wait(answers, f"{name} does not answer", SERVER_STARTS, 0.2)


def _shell(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


HELP = """
World {folder}
  Prefect  {api_ui}
  MLflow   {mlflow}
  git      {git}    a project is in it, cloned to {project} on the host `person`
  remote   {remote}
  hosts    {names}

  On a host:               {folder}/on gpu0 COMMAND ...    (sh, dvc, git, lightvision; begins in the host's home)
  A sweep:                 {folder}/on person sh -c 'cd project; python -m flows.sweep --cluster --seeds 2 --name trial'
  How long epochs take:    echo '{{"*": 0.1, "prune": 2}}' > {pace}
  What ran:                cat {log}
  What programs say:       ls {folder}/logs

Ctrl-C ends all of it.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.world", description="Start hosts and a server.")
    parser.add_argument("--gpus", type=int, default=2, help="hosts called gpu0, gpu1 ...")
    parser.add_argument("--cpus", type=int, default=1, help="hosts called cpu0, cpu1 ...")
    parser.add_argument("--staffed", action="store_true", help="with pools, deployments and workers")
    arguments = parser.parse_args()
    if reason := lacking():
        parser.error(reason)
    began = time.monotonic()
    with World(gpus=arguments.gpus, cpus=arguments.cpus) as world:
        project = toy.begin(world.person, world.git, world.remote)
        if arguments.staffed:
            from tests.cluster.cluster import Cluster  # which builds on this module

            Cluster(world).staff_all()
        for host in world.hosts.values():
            (world.folder / "etc" / f"{host.name}.enter").write_text(
                shlex.join(host.enter(["$@"])).replace("'$@'", '"$@"')
            )
        script = world.folder / "on"
        script.write_text(f"#!/bin/sh\nname=$1; shift\n. {world.folder}/etc/$name.enter\n")
        script.chmod(0o755)
        facts = {
            "api_ui": world.api.removesuffix("/api"),
            "names": ", ".join(world.hosts),
            "pace": world.toy.environment["TOY_PACE"],
            "log": world.toy.environment["TOY_LOG"],
            **{name: getattr(world, name) for name in ("folder", "mlflow", "git", "remote")},
        }
        print(f"Up after {time.monotonic() - began:.0f} s.", HELP.format(project=project, **facts), flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


def lacking() -> str:
    """Why there can be no world on this machine, if so."""
    if reason := hosts.lacking():
        return reason
    return "" if (POSTGRES / "postgres").exists() else f"no PostgreSQL: apt-get install {hosts.PACKAGES}"


if __name__ == "__main__":
    main()
