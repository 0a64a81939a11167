"""Pictures that ranges come from may not be those that networks are chosen by."""

from hashlib import blake2b

from stages.core import params
from stages.core.datasets.storage import Split
from stages.core.running.errors import Refusal


def refuse(calibration: Split, val: Split) -> None:
    digests = [{blake2b(image.tobytes()).digest() for image in split.images} for split in (calibration, val)]
    if both := len(digests[0] & digests[1]):
        raise Refusal(
            f"{both} of the calibration pictures are in val, too, pixel by pixel: `dvc repro prepare` draws them anew; "
            "where the source holds copies, set prepare.policy.near_copies to together"
        )


def refuse_few(calibration: Split, training: params.Training) -> None:
    if len(calibration) < training.batch_size:
        raise Refusal(
            f"{len(calibration)} calibration pictures are less than a batch of {training.batch_size}: raise "
            "prepare.calibration_images, or lower quantize.training.batch_size"
        )
