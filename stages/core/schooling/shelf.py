"""What a class leaves behind: the student, its control, and a folder of whoever learnt along."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.core import params
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact
from stages.core.running import files
from stages.core.schooling.classes import Class


@dataclass(frozen=True)
class Shelf:
    student: Path
    control: Path
    companions: Path

    def keep(
        self, taught: Class, wanted: params.Network, facts: Facts, origin: Mapping[str, str], teacher: Path | None
    ) -> None:
        """Parents of the student are those it listened to: the teacher, or the generation before it."""
        heard = {"teacher": teacher} if teacher else {}
        if taught.control is None:
            artifact.leave_out(self.control, "distill.control is false, or nothing was distilled")
        else:
            artifact.save_float(self.control, taught.control, wanted, facts, origin, **heard)
        self.companions.mkdir()
        parent = {"control": self.control}
        for name, (settings, network) in taught.companions.items():
            is_generation = name.startswith("generation-")
            artifact.save_float(
                self.companions / name, network, settings, facts, origin, **(parent if is_generation else {})
            )
            parent = {name: self.companions / name} if is_generation else parent
        files.write_json(self.companions / "companions.json", {"names": list(taught.companions)})
        generations = taught.generations and parent
        artifact.save_float(self.student, taught.student, wanted, facts, origin, **(generations or heard))
