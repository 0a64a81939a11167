"""ExecuTorch's files hold what their names say, nearly all of it in XNNPACK's hands, and answer as the network."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from stages.core.converting import asking, environments, table
from stages.core.converting.makers import executorch
from stages.core.converting.makers.protocol import Handed
from tests import odd_networks
from tests.odd_networks import PRODUCTS

KINDS = ("float32", "int8")
ASK = """
import sys
from executorch.runtime import Runtime
program = Runtime.get().load_program(sys.argv[1])
print("\\n" + program.load_method("lightvision").execute([])[0])
"""

COUNT = """
import sys
from pathlib import Path
import numpy as np
from executorch.extension.pybindings import portable_lib
from stages.core.converting.makers import executorch
size = int(sys.argv[2])
executorch.opened(Path(sys.argv[1]))(np.zeros((1, size, size, 3), np.uint8))
print("\\n" + str(portable_lib._threadpool_get_thread_count()))
"""


class Curves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(x) + nn.functional.hardswish(x.clone(), inplace=True)
        x = nn.functional.hardsigmoid(x) - nn.functional.hardsigmoid(x.clone(), inplace=True) / 3
        return nn.functional.adaptive_avg_pool2d(x, 1) + nn.functional.adaptive_avg_pool2d(x, 2).sum()


def test_what_is_said_otherwise_is_the_same() -> None:
    pictures = torch.linspace(-8, 8, 2 * 5 * 6 * 6).view(2, 5, 6, 6)
    network = torch.export.export(Curves(), (pictures,)).module()
    assert isinstance(network, GraphModule)
    made = executorch._rewritten(
        executorch._rewritten(network, executorch.BEFORE_QUANTIZING), executorch.BEFORE_LOWERING
    )
    torch.testing.assert_close(made(pictures), Curves()(pictures))
    left = [node.args[1] for node in made.graph.nodes if node.target in executorch.BEFORE_LOWERING]
    assert left == [[2, 2]]  # pools to more than one pixel
    assert not [node for node in made.graph.nodes if node.target in executorch.BEFORE_QUANTIZING]


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Handed:
    return odd_networks.hand_over_program(tmp_path_factory.mktemp("executorch") / "handed")


@pytest.fixture(scope="module")
def made(handed: Handed) -> dict[str, Path]:
    environments.build("executorch")
    for kind in KINDS:
        asking.convert("executorch", handed.folder, handed.folder / kind, kind)
    return {kind: handed.folder / f"{kind}.pte" for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "apart"), [("float32", 1e-6), ("int8", 4e-2)])
def test_it_answers_as_the_network(made: dict[str, Path], handed: Handed, kind: str, apart: float) -> None:
    """In shares of the widest logit."""
    expected = np.load(handed.folder / "answers.npy")
    np.save(handed.folder / "shown.npy", odd_networks.shown())
    answers, times = asking.answers("executorch", made[kind], handed.folder / "shown.npy", timed=True)
    off = np.abs(answers - expected).max() / np.abs(expected).max()
    assert off < apart
    assert kind == "float32" or off > 1e-5
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95
    assert len(times) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_its_name_says(made: dict[str, Path], kind: str) -> None:
    found = asking.describe("executorch", made[kind])
    assert not table.TARGETS[f"executorch_{kind}"].rule(found)
    assert all(table.TARGETS[f"executorch_{other}"].rule(found) for other in KINDS if other != kind)
    assert found["types"] == {kind: 2 * PRODUCTS}
    assert found["delegated"] == 1
    products = [found["operators"].get(name, 0) for name in ("Conv2d", "DepthwiseConv2d", "FullyConnected")]
    assert products == [PRODUCTS - 2, 1, 1]
    assert found["input"] == "float32"


@pytest.mark.slow
def test_the_weights_of_the_integer_file_are_bytes(made: dict[str, Path], handed: Handed) -> None:
    """Codes by channel, from the exported weights alone: these very bytes lie in the file, in XNNPACK's order."""
    weights = torch.export.load(handed.network).state_dict["network.wide.weight"]
    rows = weights.detach().flatten(1)
    scales = rows.abs().amax(dim=1, keepdim=True) / 127
    codes = (rows / scales).round().to(torch.int8).numpy()
    assert codes.tobytes() in made["int8"].read_bytes()
    assert rows.numpy().tobytes() not in made["int8"].read_bytes()
    assert rows.numpy().tobytes() in made["float32"].read_bytes()


@pytest.mark.slow
def test_the_file_tells_its_facts(made: dict[str, Path], handed: Handed) -> None:
    command = [str(environments.python("executorch")), "-c", ASK, str(made["int8"])]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(told.strip().splitlines()[-1]) == handed.facts | {"input": "float32"}


@pytest.mark.slow
def test_it_runs_on_one_thread(made: dict[str, Path], handed: Handed) -> None:
    """ExecuTorch's pool has a thread for each core, whatever OMP_NUM_THREADS says."""
    python, size = str(environments.python("executorch")), str(handed.facts["image_size"])
    command = [python, "-c", COUNT, str(made["int8"]), size]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=asking.surroundings()).stdout
    assert told.strip().splitlines()[-1] == "1"
