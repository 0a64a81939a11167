"""Where the arithmetic happens, decided once for a stage."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from stages.core import params
from stages.core.running.errors import Refusal


@dataclass(frozen=True)
class Machine:
    device: torch.device
    precision: torch.dtype
    resident: float  # share of the free memory that a split may take

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    @property
    def layout(self) -> torch.memory_format:
        """Channels last is the fast order on a GPU; on CPUs its backward pass corrupted memory at pruned widths.

        Seen with torch 2.13 and AVX-512 at channel counts that are no multiple of 16; nothing is lost in float32.
        """
        return torch.channels_last if self.device.type == "cuda" else torch.contiguous_format

    def free_memory(self) -> int:
        """In bytes, now; what a CPU keeps of files only for speed counts as free."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return psutil.virtual_memory().available

    def place(self, network: nn.Module) -> nn.Module:
        return network.to(device=self.device, memory_format=self.layout)  # pyright: ignore[reportCallIssue]


def choose(compute: params.Compute, seed: int) -> Machine:
    """Also seeds every generator, and asks for kernels that give the same sums twice."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS need not give the same sums twice
    precision = {"float32": torch.float32, "bfloat16": torch.bfloat16}[compute.precision]
    return Machine(torch.device(_device(compute.device)), precision, compute.resident)


def _device(wanted: str) -> str:
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if present[name])
    if not present[wanted]:
        usable = ", ".join(name for name, here in present.items() if here)
        raise Refusal(f"compute.device: no {wanted} on this machine; here: auto, {usable}")
    return wanted
