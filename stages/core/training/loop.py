"""The one training loop: every stage that learns, learns here.

Best epoch by val, patience by val, a checkpoint after each epoch. A run that was killed goes on after its last whole
epoch and ends with the very weights of an unbroken run.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from stages.core import batches, evaluation, params
from stages.core.batches import Pictures
from stages.core.machine import Machine
from stages.core.running import progress
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import checkpoint, optimizers
from stages.core.training.checkpoint import Progress
from stages.core.training.objectives import Objective

CURVES = ("epoch", "rate", "train_loss", "val_loss", "val_accuracy")
History = list[dict[str, float]]


@dataclass(frozen=True)
class Lesson:
    """What to learn from, and how."""

    train: Pictures
    val: Pictures
    objective: Objective
    settings: params.Training
    augment: params.Augment
    machine: Machine
    seed: int


def fit(network: nn.Module, lesson: Lesson, run: Run, name: str) -> History:
    """Train `network` in place; it ends with the weights of its best epoch. `name` tells a stage's trainings apart."""
    network = lesson.machine.place(network)
    optimizer = optimizers.build(lesson.settings.optimizer, network)
    path = run.scratch / f"{name}.checkpoint"
    state = _resume(path, network, optimizer)
    with progress.bars() as bars:
        task = bars.add_task(name, total=lesson.settings.epochs, completed=state.epoch, facts="")
        while state.epoch < lesson.settings.epochs and not _out_of_patience(state.history, lesson.settings.patience):
            began = time.monotonic()
            row = _epoch(network, optimizer, lesson, state.epoch, bars)
            state.epoch += 1
            state.history.append(row)
            if best_epoch(state.history) == state.epoch:
                state.best = _copy(network)
            seconds = time.monotonic() - began
            run.step(name, state.epoch, row | {"pictures_per_second": len(lesson.train) / seconds})
            state.network, state.optimizer = network.state_dict(), optimizer.state_dict()
            checkpoint.save(path, state)
            _tell(bars, task, name, row, lesson.settings.epochs)
    network.load_state_dict(state.best)
    return state.history


def best_epoch(history: History) -> int:
    """Highest accuracy on val, then lowest loss, then the first."""
    return max(range(len(history)), key=lambda at: (history[at]["val_accuracy"], -history[at]["val_loss"], -at)) + 1


def summary(history: History, epochs: int) -> dict[str, float | int | bool]:
    best = history[best_epoch(history) - 1]
    return {
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "best_epoch": int(best["epoch"]),
        "epochs": len(history),
        "stopped_early": len(history) < epochs,
    }


def _epoch(network: nn.Module, optimizer: Optimizer, lesson: Lesson, epoch: int, bars: Bars) -> dict[str, float]:
    """One pass over the training pictures; losses stay on the device until its end."""
    settings, total = lesson.settings, batches.batches_per_epoch(len(lesson.train), lesson.settings.batch_size)
    torch.manual_seed(lesson.seed * 1_000_003 + epoch)
    network.train()
    losses: list[Tensor] = []
    task = bars.add_task(f"epoch {epoch + 1}", total=total, facts="")
    stream = batches.shuffled(lesson.train, settings.batch_size, lesson.augment, settings.mix, lesson.seed, epoch)
    with closing(stream):
        for number, (images, labels) in enumerate(stream):
            step = epoch * total + number
            warm_up = round(settings.warm_up_epochs * total)
            rate = settings.optimizer.rate * optimizers.rate_share(step, settings.epochs * total, warm_up)
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses.append(_step(network, optimizer, lesson, images, labels))
            bars.advance(task)
    bars.remove_task(task)
    rate = optimizer.param_groups[0]["lr"]
    _refuse_divergence(torch.stack(losses), epoch + 1, rate)
    answers = evaluation.logits(network, lesson.val)
    row = (
        epoch + 1,
        rate,
        torch.stack(losses).mean().item(),
        functional.cross_entropy(answers, lesson.val.labels).item(),
        evaluation.accuracy(answers, lesson.val.labels),
    )
    return dict(zip(CURVES, row, strict=True))


def _step(network: nn.Module, optimizer: Optimizer, lesson: Lesson, images: Tensor, labels: Tensor) -> Tensor:
    with lesson.machine.autocast():
        answers = network(images)
        loss = lesson.objective(answers.float(), images, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if lesson.settings.clip_gradient is not None:
        nn.utils.clip_grad_norm_(network.parameters(), lesson.settings.clip_gradient)
    optimizer.step()
    return loss.detach()


def _resume(path: Path, network: nn.Module, optimizer: Optimizer) -> Progress:
    state = checkpoint.load(path)
    if state is None:
        return Progress(0, {}, {}, {}, [])
    network.load_state_dict(state.network)
    optimizer.load_state_dict(state.optimizer)
    progress.note(f"{path.stem}: goes on after epoch {state.epoch}")
    return state


def _refuse_divergence(losses: Tensor, epoch: int, rate: float) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        raise Refusal(
            f"the loss is not finite from batch {bad[0].item() + 1} of epoch {epoch} (rate {rate:.2g}): "
            "lower training.optimizer.rate, lengthen training.warm_up_epochs or set training.clip_gradient"
        )


def _out_of_patience(history: History, patience: int) -> bool:
    return bool(history) and len(history) - best_epoch(history) >= patience


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _tell(bars: Bars, task: "object", name: str, row: dict[str, float], epochs: int) -> None:
    facts = f"loss {row['train_loss']:.3f}  val {row['val_accuracy']:.2%}"
    bars.update(task, advance=1, facts=facts)  # pyright: ignore[reportArgumentType]
    if not bars.console.is_terminal:
        progress.note(f"{name}: epoch {row['epoch']:.0f}/{epochs}  {facts}")
