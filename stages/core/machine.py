"""Where the arithmetic happens, decided once for a stage."""

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar, cast

import psutil
import torch
from torch import distributed, nn

from stages.core import params
from stages.core.running import processes, progress, team
from stages.core.running.errors import Refusal
from stages.core.running.team import Team

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILERS = ("g++", "clang++")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Machine:
    device: torch.device
    precision: torch.dtype
    resident: float  # share of the free memory that a split may take
    compile: str = "off"
    team: Team = team.ALONE

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

    def same(self, found: Found) -> Found:
        """What the first process found is what all go on from."""
        if self.team.size == 1:
            return found
        told = [found]
        distributed.broadcast_object_list(told, src=0)
        return told[0]

    def place(self, network: nn.Module) -> nn.Module:
        return network.to(device=self.device, memory_format=self.layout)  # pyright: ignore[reportCallIssue]

    def compiled(self, network: nn.Module) -> nn.Module:
        """Shares its weights with the network; the first steps compile."""
        if self.compile == "off":
            return network
        if self.device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
            raise Refusal(f"compute.compile needs a C++ compiler ({' or '.join(COMPILERS)}); set it to off without one")
        return cast(nn.Module, torch.compile(network, mode=self.compile, dynamic=False))

    def peak_memory(self) -> int:
        """In bytes: of a GPU since the last call, else of the process since its start."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return peak
        return processes.peak_memory()

    def describe(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


def choose(compute: params.Compute, seed: int) -> Machine:
    """Also seeds every generator, and asks for kernels that give the same sums twice if that is wanted."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(compute.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not compute.deterministic
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS need not give the same sums twice
    device = _device(compute.device)
    return Machine(device, _precision(compute.precision, device), compute.resident, compute.compile, _join(device))


def _join(device: torch.device) -> Team:
    """Meet the other processes, once; GPUs by NCCL, CPUs by gloo."""
    here = team.member()
    if here.size > 1 and not distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return here


def native_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies it, rather than being slower at it than at float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    fastest = "bfloat16" if native_bfloat16(device) else "float32"
    if wanted == "float16" and device.type == "cpu":
        progress.note(f"compute.precision: float16 is slow on CPUs and not used here, but {fastest}")
        wanted = fastest
    return PRECISIONS[fastest if wanted == "auto" else wanted]


def _device(wanted: str) -> torch.device:
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if present[name])
    if not present[wanted]:
        usable = ", ".join(name for name, here in present.items() if here)
        raise Refusal(f"compute.device: no {wanted} on this machine; here: auto, {usable}")
    return torch.device(wanted, team.local_rank()) if wanted == "cuda" else torch.device(wanted)
