"""What the other stages wrote down, stage by stage."""

from stages.core.reporting.findings.base import NETWORKS, PORTABLE, SHIPPED, Found, read, table
from stages.core.reporting.findings.benchmark import (
    Benchmarked,
    Drift,
    Energy,
    File,
    Files,
    Gpu,
    Joules,
    Load,
    Machine,
    Memory,
    Timing,
    Ways,
)
from stages.core.reporting.findings.converting import Converted, Made, Skipped
from stages.core.reporting.findings.evaluation import (
    Attention,
    Beside,
    Evaluated,
    Judged,
    Looked,
    WorstClass,
    read_answers,
    read_attention,
    read_classes,
    read_confusion,
    read_reliability,
    read_robustness,
    read_subgroups,
)
from stages.core.reporting.findings.learning import Against, Companion, Distilled, Lesson, Prepared, Trained, Twins
from stages.core.reporting.findings.models import Labels, Model
from stages.core.reporting.findings.pruning import (
    Control,
    Cut,
    Heads,
    Kept,
    Learner,
    Pruned,
    Size,
    Width,
    read_sensitivity,
)
from stages.core.reporting.findings.quantization import Choice, FewBits, Quantized, RoundingError, Tried, Way
from stages.core.reporting.findings.shipping import Exported, FewerBits, Operators, Shipped, Steps
from stages.core.reporting.findings.whole import Findings, read_curves
