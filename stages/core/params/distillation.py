"""What a network is told while it learns: by labels, by a teacher, by its peers or by its own depth."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from stages.core.params.base import Fraction, NonNegative, Settings
from stages.core.params.networks import Member

Weight = PositiveFloat  # of a term beside the cross entropy


class CrossEntropy(Settings):
    """Labels alone, no teacher."""

    name: Literal["cross_entropy"]
    smoothing: Annotated[float, Field(ge=0, lt=1)]


class Hinton(Settings):
    """(1 - alpha) cross entropy + alpha T^2 KL(teacher || student), both softened by T."""

    name: Literal["hinton"]
    temperature: PositiveFloat
    alpha: Fraction


class Standardised(Settings):
    """Hinton's, of logits that have mean 0 and deviation 1 in each picture: no need to match the teacher's range."""

    name: Literal["standardised"]
    temperature: PositiveFloat
    alpha: Fraction


class LogitMSE(Settings):
    """(1 - alpha) cross entropy + alpha times the mean squared difference of the logits."""

    name: Literal["logit_mse"]
    alpha: Fraction


class FunctionMatching(Settings):
    """T^2 KL(teacher || student) alone, of blended pictures that both see, over a long schedule."""

    name: Literal["function_matching"]
    temperature: PositiveFloat


class DKD(Settings):
    """Cross entropy + T^2 (alpha times the target's part of the KL + beta times the others'), warmed up linearly.

    `beta: auto` is a fifth of the number of classes, from 1 to 8: 2 at ten classes, the paper's 8 from forty on.
    """

    name: Literal["dkd"]
    temperature: PositiveFloat
    alpha: NonNegative
    beta: NonNegative | Literal["auto"]
    warm_up_epochs: NonNegative


class DIST(Settings):
    """Cross entropy + beta times how little rows correlate, a picture's chances, + gamma times columns, a class's."""

    name: Literal["dist"]
    temperature: PositiveFloat
    beta: NonNegative
    gamma: NonNegative


class LayerPair(Settings):
    """A layer of each network, by its path in it."""

    student: Annotated[str, Field(min_length=1)]
    teacher: Annotated[str, Field(min_length=1)]


LayerPairs = Annotated[tuple[LayerPair, ...], Field(min_length=1, strict=False)]


class AttentionTransfer(Settings):
    """Cross entropy + weight times the squared difference of where layers look."""

    name: Literal["attention_transfer"]
    layers: LayerPairs
    weight: Weight


class FitNet(Settings):
    """Cross entropy + weight times the squared difference of what layers say, the student's through an adapter."""

    name: Literal["fitnet"]
    layers: LayerPairs
    weight: Weight


class RKD(Settings):
    """Cross entropy + distances and angles among the pictures of a batch, as one pair of layers sees them."""

    name: Literal["rkd"]
    layers: LayerPair
    distance: NonNegative
    angle: NonNegative


class CRD(Settings):
    """Cross entropy + weight times telling the teacher's view of a picture from its views of `negatives` others."""

    name: Literal["crd"]
    layers: LayerPair
    weight: Weight
    size: PositiveInt
    negatives: PositiveInt
    temperature: PositiveFloat
    momentum: Fraction


class Mutual(Settings):
    """No teacher: two students, each with cross entropy + KL to the other, from different beginnings."""

    name: Literal["mutual"]
    peer: Member


class Deeper(Settings):
    """No teacher: classifiers after `layers` learn from labels, from the end's logits and from what `deepest` says."""

    name: Literal["deeper"]
    layers: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    deepest: Annotated[str, Field(min_length=1)]
    temperature: PositiveFloat
    alpha: Fraction
    hint: NonNegative


Guided = Hinton | Standardised | LogitMSE | FunctionMatching | DKD | DIST | AttentionTransfer | FitNet | RKD | CRD
Method = Annotated[Guided | Mutual | Deeper, Field(discriminator="name")]  # of making a student better
Recovery = Annotated[CrossEntropy | Guided | Deeper, Field(discriminator="name")]  # of a network that lost something

Anything = CrossEntropy | Guided | Mutual | Deeper
Objective = Annotated[Anything, Field(discriminator="name")]

ABOUT_LAYERS = (AttentionTransfer, FitNet, RKD, CRD)
WITHOUT_TEACHER = (CrossEntropy, Mutual, Deeper)
ONE_LABEL_EACH = (DKD, CRD)  # what blended pictures do not have


class Teacher(Settings):
    """The network of train_teacher."""

    name: Literal["teacher"]


class Itself(Settings):
    """The student of the generation before; the first one learnt from the labels alone."""

    name: Literal["itself"]
    generations: Annotated[int, Field(ge=1, le=10)]


Guide = Annotated[Teacher | Itself, Field(discriminator="name")]
