"""Programs of torch.export: torch alone loads and runs them, with no code of the network's authors."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from stages.core.converting.makers import protocol
from stages.core.converting.makers.protocol import Answer, Described, Handed

FACTS = "lightvision.json"  # inside the file


def float32(handed: Handed, stem: Path) -> None:
    program = torch.export.load(handed.program)
    facts = json.dumps(handed.facts, ensure_ascii=False)
    torch.export.save(program, stem.with_suffix(".pt2"), extra_files={FACTS: facts})


def opened(file: Path) -> Answer:
    torch.set_num_threads(1)
    network = torch.export.load(file).module()

    def answer(picture: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(picture)).numpy()

    return answer


def describe(file: Path) -> Described:
    program = torch.export.load(file)
    asked = [node for node in program.graph.nodes if node.op == "call_function"]
    operators = Counter(getattr(node.target, "__name__", str(node.target)).split(".")[0] for node in asked)
    types = Counter(_type(node.meta["val"]) for node in asked if isinstance(node.meta.get("val"), torch.Tensor))
    weights = {_type(tensor) for tensor in program.state_dict.values() if tensor.ndim > 1}
    types += Counter(_type(tensor) for tensor in program.state_dict.values() if tensor.ndim > 1)
    return Described(
        runtime=f"PyTorch {torch.__version__.split('+')[0]}",
        kind=" and ".join(sorted(weights)),
        types=types,
        operators=operators,
        input=_type(_input(program)),
        transposes=sum(operators[name] for name in ("permute", "transpose")),
    )


def _input(program: ExportedProgram) -> torch.Tensor:
    [name] = program.graph_signature.user_inputs
    return next(node.meta["val"] for node in program.graph.nodes if node.name == name)


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


if __name__ == "__main__":
    protocol.main(convert={"float32": float32}, answer=opened, describe=describe)
