"""The teacher is asked once about augmented views of every training picture; students then hear it for free."""

import shutil

import torch

from stages.core import advice as said
from stages.core import batches, machine, params
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.running import files, progress
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run


def main(
    run: Run,
    advise: params.Advise,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    teacher: Input,
    advice: Output,
    metrics: Output,
) -> None:
    here = machine.choose(compute, seed)
    split, guide = storage.load(train), artifact.load(teacher)
    if guide.card.facts.classes != split.facts.classes:
        raise Refusal(f"{teacher} knows other classes than {train}: `dvc repro train_teacher` trains it on these")
    network, pictures = here.place(guide.network), batches.on_device(split, here)
    advice.mkdir()
    right, told, digests = 0.0, 0, list[str]()
    for number in progress.track(range(advise.views), "views", advise.views):
        kept = run.scratch / said.name(number)
        if not kept.exists():  # a stage that was interrupted goes on after its last view
            said.save(kept, said.ask(network, pictures, advise, augment, number, here), advise)
        shutil.copyfile(kept, advice / kept.name)
        digests.append(files.digest(kept))
        logits = said.unpack(said.load(kept), len(split.facts.classes))
        right += (logits.argmax(dim=1) == torch.from_numpy(split.labels)).sum().item()
        told += len(logits)
    of = files.digest(teacher), files.digest(train), len(split.facts.classes)
    said.Record(advise, augment, *of, tuple(digests)).write(advice)
    size = sum(path.stat().st_size for path in advice.iterdir())
    found = {"accuracy_on_views": right / told} if told and advise.mix.name == "none" else {}
    run.metrics(metrics, {"views": advise.views, "pictures": len(split), "bytes": size} | found)
