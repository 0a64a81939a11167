"""What prefect.yaml and deploy/ say is understood by those who read it: Prefect's server and workers, systemd."""

import asyncio
import configparser
import importlib
import json
import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import httpx
import pytest
from docker.types import HostConfig
from kubernetes_asyncio.client import ApiClient
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import Settings
from prefect.workers.base import BaseJobConfiguration
from prefect_docker.worker import DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration
from ruamel.yaml import YAML

import flows
from flows import setup
from flows.core.work import Work
from stages.core.running.sources import ROOT

DEPLOY = ROOT / "deploy"
DEPLOYMENTS: list[dict[str, Any]] = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
TEMPLATES = [(jobs, hardware) for jobs in ("docker", "kubernetes") for hardware in ("gpu", "cpu")]
Made = TypeVar("Made", bound=BaseJobConfiguration)
PASSWORD = "lightvision:secret"  # noqa: S105


def loaded(deployment: dict[str, Any]) -> Flow[..., Any]:
    return load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)


def test_every_flow_that_a_cluster_can_run_is_deployed() -> None:
    modules = [importlib.import_module(f"flows.{module.name}") for module in pkgutil.iter_modules(flows.__path__)]
    made = {thing.name: thing for module in modules for thing in vars(module).values() if isinstance(thing, Flow)}
    coordinators = {f"{name}/cluster" for name, flow in made.items() if "repository" in flow.parameters.properties}
    found = {f"{loaded(one).name}/{one['name']}": one for one in DEPLOYMENTS}
    assert found.keys() == coordinators | {"job/gpu", "job/cpu"}
    for name, one in found.items():
        assert one["tags"] == ["lightvision", *(["lightvision-coordinator"] if name in coordinators else [])]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["entrypoint"])
def test_deployments_give_flows_what_they_take_in_pools_there_are(deployment: dict[str, Any]) -> None:
    assert deployment.get("parameters", {}).keys() <= loaded(deployment).parameters.properties.keys()
    pool = deployment["work_pool"]
    assert pool["name"] in {setup.COORDINATORS, *setup.WORK}
    assert pool["work_queue_name"] in setup.QUEUES
    assert int(pool["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) >= 30  # Prefect's least


def test_a_run_is_given_up_after_more_than_two_missed_beats_and_within_two_minutes() -> None:
    beat = int(DEPLOYMENTS[0]["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    silent = next(one for one in setup.automations() if "silent" in one.name)
    within = silent.model_dump()["trigger"]["within"].total_seconds()
    assert 2 * beat < within <= 120


def configured(kind: type[Made], template: dict[str, Any], values: dict[str, Any]) -> Made:
    """As a worker does; the templates refer to nothing for which it would have to ask a server."""
    nobody = cast(PrefectClient, object())
    return asyncio.run(kind.from_template_and_values(template, values, client=nobody))


def run_of(env: dict[str, str]) -> FlowRun:
    return FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run", job_variables={"env": env})


@pytest.mark.parametrize(("jobs", "hardware"), TEMPLATES)
def test_templates_use_every_variable_they_have(jobs: str, hardware: str) -> None:
    template = setup.template(jobs, hardware)
    written = json.dumps(template["job_configuration"])
    assert template["variables"]["properties"].keys() == {
        name for name in template["variables"]["properties"] if f"{{{{ {name} }}}}" in written or name == "env"
    }
    assert written.count("{{") == sum(
        written.count(f"{{{{ {name} }}}}") for name in template["variables"]["properties"]
    )


@pytest.mark.parametrize("hardware", ["gpu", "cpu"])
def test_docker_takes_the_container_that_the_template_describes(hardware: str) -> None:
    values = {"env": {"BEAT": "30"}, "gpu": "3"}
    made = configured(DockerWorkerJobConfiguration, setup.template("docker", hardware), values)
    made.prepare_for_flow_run(run_of(values["env"]))
    config = HostConfig(version="1.43", **(made.container_create_kwargs or {}), binds=made.volumes)
    gpus = [request["DeviceIDs"] for request in config.get("DeviceRequests", [])]
    assert gpus == ([["3"]] if hardware == "gpu" else [])
    assert config["ShmSize"] == 8 * 2**30
    assert made.env["BEAT"] == "30"
    assert made.env["LIGHTVISION_HOST_FOLDER"] in {volume.split(":")[1] for volume in made.volumes}
    assert str(made.env.get("LIGHTVISION_DEVICE_LOCK")).endswith("gpu3.device") == (hardware == "gpu")


@pytest.mark.parametrize("hardware", ["gpu", "cpu"])
def test_kubernetes_knows_every_field_of_the_job_that_the_template_describes(hardware: str) -> None:
    values = {"env": {"BEAT": "30"}}
    made = configured(KubernetesWorkerJobConfiguration, setup.template("kubernetes", hardware), values)
    made.prepare_for_flow_run(run_of(values["env"]))
    client = ApiClient.__new__(ApiClient)  # only its knowledge of Kubernetes' objects
    job = client._ApiClient__deserialize(made.job_manifest, "V1Job")  # pyright: ignore[reportAttributeAccessIssue]
    assert client.sanitize_for_serialization(job) == made.job_manifest  # what it does not know is lost
    pod = made.job_manifest["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert container["resources"]["limits"].get("nvidia.com/gpu") == ("1" if hardware == "gpu" else None)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert environment["BEAT"] == "30"
    assert environment["LIGHTVISION_HOST_FOLDER"] in {mount["mountPath"] for mount in container["volumeMounts"]}


def variables(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("name", ["server.env.example", "worker.env.example"])
def test_prefect_knows_every_setting_of_the_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {key: value for key, value in variables(DEPLOY / name).items() if key.startswith("PREFECT_")}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    understood = Settings().to_environment_variables(exclude_unset=True)
    integrations = {key for key in given if key.startswith("PREFECT_REDIS_")}
    assert given.keys() - integrations <= understood.keys()


def settings_of(unit: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    parser.read_string(unit.read_text(encoding="utf-8").replace("\\\n", " "))
    return dict(parser["Service"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd reads its units itself")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/lightvision/.venv/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_start_programs_of_the_environment_and_read_files_that_have_an_example(unit: Path) -> None:
    service = settings_of(unit)
    assert service["ExecStart"].startswith("/opt/lightvision/.venv/bin/")
    assert service["Restart"] == "always"
    if "EnvironmentFile" in service:
        assert (DEPLOY / f"{Path(service['EnvironmentFile']).name}.example").is_file()


@pytest.mark.parametrize("name", ["worker", "coordinators"])
def test_nothing_outlives_a_worker_and_memory_ends_one_stage_alone(name: str) -> None:
    service = settings_of(DEPLOY / "systemd" / f"lightvision-{name}.service")
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")


def test_the_image_takes_what_exists_and_the_lock() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert any("--require-hashes -r requirements.lock" in line for line in lines)


# ------------------------------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a person exports to reach it; pools, automations and deployments are put there by hand."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_API_AUTH_STRING": PASSWORD}
    url = f"http://127.0.0.1:{port}/api"
    person = os.environ | {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": PASSWORD, "PREFECT_HOME": str(home / "p")}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | quiet | {"PREFECT_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait(lambda: answers(url), 120)
        yield person
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


def wait(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(1)


def command(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_setup_says_what_is_missing(server: dict[str, str]) -> None:
    unset = {key: value for key, value in server.items() if key != "PREFECT_API_URL"}
    wrong = server | {"PREFECT_API_AUTH_STRING": "lightvision:guess"}
    absent = server | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    for environment, words in ((unset, "PREFECT_API_URL is not set"), (wrong, "AUTH_STRING"), (absent, "no server")):
        done = command(environment, "flows.setup")
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_server_learns_what_a_cluster_is_and_gives_up_what_falls_silent(server: dict[str, str]) -> None:
    first, again = command(server, "flows.setup"), command(server, "flows.setup")
    assert first.stdout.count("created") == 6, first.stderr
    assert again.stdout.count("up to date") == 6, again.stderr
    assert "`prefect work-pool delete" in command(server, "flows.setup", "--jobs", "docker").stderr
    done = command(server, "prefect", "--no-prompt", "deploy", "--all")
    assert done.stdout.count("successfully created") == len(DEPLOYMENTS), done.stdout + done.stderr

    with httpx.Client(
        base_url=f"{server['PREFECT_API_URL']}/", auth=("lightvision", "secret"), timeout=30, follow_redirects=True
    ) as api:
        queues = api.post("work_queues/filter", json={}).json()
        assert len(queues) == 9
        assert all(queue["priority"] == setup.QUEUES[queue["name"]] for queue in queues)

        dead, alive, named = (begun(api, "job/gpu") for _ in range(3))
        coordinator = begun(api, "sweep/cluster")
        put(api, named, {"type": "COMPLETED", "name": "Cached"})
        put(api, coordinator, {"type": "CRASHED"})
        wait(lambda: state(api, coordinator) == "AwaitingRetry", 60)

        def buried() -> bool:
            beat(api, alive)
            return state(api, dead) == "Crashed"

        wait(buried, 150)
        assert state(api, alive) == "Running"
        assert state(api, named) == "Cached"


def begun(api: httpx.Client, name: str) -> str:
    """A run as a worker's engine leaves it that says no more."""
    deployment = api.get(f"deployments/name/{name}").json()
    work = dict.fromkeys(Work.model_fields.keys() - {"stages"}, "none")
    parameters = {"work": work | {"stages": []}} if name.startswith("job") else {}
    run = post(api, f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}).json()["id"]
    for kind in ("PENDING", "RUNNING"):
        put(api, run, {"type": kind})
    return run


def put(api: httpx.Client, run: str, state: dict[str, str]) -> None:
    answer = post(api, f"flow_runs/{run}/set_state", {"state": state}).json()
    assert answer["status"] == "ACCEPT", answer


def state(api: httpx.Client, run: str) -> str:
    return api.get(f"flow_runs/{run}").json()["state_name"]


def beat(api: httpx.Client, run: str) -> None:
    """As prefect.flow_engine does."""
    tag = {"prefect.resource.id": "prefect.tag.lightvision", "prefect.resource.role": "tag"}
    event = {"id": str(uuid4()), "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    event |= {"event": "prefect.flow-run.heartbeat", "payload": {}}
    event |= {"resource": {"prefect.resource.id": f"prefect.flow-run.{run}"}, "related": [tag]}
    post(api, "events", [event])


def post(api: httpx.Client, path: str, content: object) -> httpx.Response:
    """Where SQLite is busy the server says so, and Prefect's clients ask again."""
    answers: list[httpx.Response] = []

    def served() -> bool:
        answers.append(api.post(path, json=content))
        return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

    wait(served, 60)
    assert answers[-1].is_success, answers[-1].text
    return answers[-1]
