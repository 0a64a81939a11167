"""Numbers of a made-up run, all different."""

from collections.abc import Mapping
from typing import Any

NETWORKS = ("teacher", "control", "student", "pruned", "quantized")
SHIPPED = ("teacher", "student", "pruned", "quantized")
PARENTS = {"control": "teacher", "student": "teacher", "pruned": "student", "quantized": "pruned"}
CLASSES = ("<b>bold</b>", "NA", "Ä & 鳥", "never")
PICTURES = 200
LESSON = {"val_accuracy": 0.876, "val_loss": 0.5, "best_epoch": 2, "epochs": 3, "stopped_early": False}
PRUNED: dict[str, Any] = {
    **LESSON,
    "val_accuracy_before_recovery": 0.432,
    "before": {"parameters": 400_321, "macs": 7_000_000, "bytes": 1_601_284},
    "after": {"parameters": 200_777, "macs": 3_000_000, "bytes": 803_108, "nonzero": 200_777},
    "parameters_removed": 0.498,
    "macs_removed": 0.571,
    "bytes_removed": 0.499,
    "zeros": 0.0,
    "of": "parameters",
    "blocks": {},
    "steps": {"1": {"removed": 0.498, "zeros": 0.0, "val_accuracy": 0.432}},
    "controls": {"uncut": LESSON, "from-scratch": LESSON | {"val_accuracy": 0.654}},
    "seeds": {"0": {"pruned": 0.876, "uncut": 0.876, "from-scratch": 0.654}},
    "against": {
        "uncut": {"gain": 0.0, "low": None, "high": None, "verdict": "not shown"},
        "from-scratch": {"gain": 0.222, "low": None, "high": None, "verdict": "not shown"},
    },
    "confidence": 0.95,
    "channels": {"conv1": {"before": 16, "after": 9}, "head": {"before": 4, "after": 4}},
    "heads": {},
    "zeros_by_layer": {"conv1": 0.0, "head": 0.0},
}
METHOD: dict[str, Any] = {
    "name": "integer",
    "weights": 4,
    "activations": 7,
    "ends": 8,
    "layers": {},
    "keep": [],
    "scales": "channel",
    "zero_points": True,
    "range": {"name": "percentile", "percentile": 99.9},
    "rounding": {"name": "nearest"},
    "equalize_iterations": 20,
    "correct": "bias",
}
QUANTIZED: dict[str, Any] = {
    "method": "integer",
    "val_accuracy": 0.871,
    "val_accuracy_before": 0.874,
    "val_accuracy_calibrated": 0.871,
    "val_agreement": 0.983,
    "calibration_pictures": 77,
    "zeros_before": 0.0,
    "zeros": 0.0,
    "weight_bytes": 23_457,
    "tried": [],
    "choices": [],
    "alone": {},
    "layers": {
        "first": {"bits": 8, "weights": 433, "levels": 201, "zeros": 0.0, "error": None},
        "last": {"bits": 4, "weights": 1234, "levels": 15, "zeros": 0.0, "error": None},
    },
    "flows": {"relu.act_quant": 7, "x_quant.act_quant": 7},
    "recovery": None,
    "seeds": {},
    "against": {},
    "budget": 0,
    "confidence": 0.95,
}
OPERATORS: dict[str, Any] = {
    "integer": {
        "products": {"QLinearConv": 16, "QGemm": 2},
        "additions": {"QLinearAdd": 6},
        "pooling": {"QLinearGlobalAveragePool": 1},
        "others": {"Flatten": 3},
    },
    "floating": {"products": {"Conv": 1}, "additions": {}, "pooling": {}, "others": {"Mul": 5}},
    "conversions": {"DequantizeLinear": 4},
    "ends": {"Cast": 7, "QuantizeLinear": 2},
    "first_is_integer": True,
    "last_is_integer": True,
}
BENCHMARK: dict[str, Any] = {
    "confidence": 0.95,
    "energy": {"source": None, "why": "not measurable here: no counters"},
    "gpu": {"why": "no CUDA provider in this ONNX Runtime"},
}
CONVERT: dict[str, Any] = {
    "machine": {"cpu": "A <CPU>"},
    "pictures": 180,
    "confidence": 0.95,
    "targets": {
        "ort_float32": {"made": True, "file": "ort_float32.ort", "of": "pruned", "bytes": 130_001, "kind": "float32"}
        | {"runtime": "ONNX Runtime 1.2", "transposes": None, "delegated": None, "accuracy": 0.9812}
        | {"accuracy_drop": 0.0056, "drop_low": -0.0101, "drop_high": 0.0234, "agreement": 0.9944}
        | {"largest_difference": 1.5e-5, "milliseconds": 0.321}
        | {"milliseconds_low": 0.311, "milliseconds_high": 0.345},
        "executorch_int8": {"made": True, "file": "executorch_int8.pte", "of": "pruned", "bytes": 33_003}
        | {"kind": "full-integer", "runtime": "ExecuTorch 3.4", "transposes": 2, "delegated": 0.957, "accuracy": 0.9789}
        | {"accuracy_drop": 0.0, "drop_low": -0.01, "drop_high": 0.01, "agreement": 0.9833}
        | {"largest_difference": 0.75, "milliseconds": 0.456, "milliseconds_low": 0.4, "milliseconds_high": 0.5},
        "ncnn_float16": {"made": False, "why": "no converter of <ncnn>"},
    },
}
MACHINE = {
    "cpu": "A <CPU>",
    "system": "Linux x86_64",
    "instructions": ["a", "b"],
    "integer_products": "exact",
    "integer_products_because": "VNNI",
}


def distilled(lesson: dict[str, Any], seeds: Mapping[str, tuple[float, float | None]], **others: Any) -> dict[str, Any]:
    """What distill wrote, with a control for every seed or for none."""
    taught = bool(seeds) and all(control is not None for _, control in seeds.values())
    gains = [student - control for student, control in seeds.values() if control is not None]
    return {
        "student": lesson,
        "control": lesson if taught else None,
        "seeds": {seed: {"student": student, "control": control} for seed, (student, control) in seeds.items()},
        "verdict": "not shown" if taught else "no control",
        "gain_on_val": sum(gains) / len(gains) if gains else None,
        "gain_low": None,
        "gain_high": None,
        "confidence": 0.95,
        "method": "hinton",
        "taught_by": "teacher",
        "advice": "online",
        "parameters": 400_321,
        "macs": 7_000_000,
        "companions": {},
    } | others


def timing(median: float, **others: Any) -> dict[str, Any]:
    """Of a file beside a teacher that takes 1.25 ms."""
    times = {"median": median, "low": median * 0.9, "high": median * 1.1, "noisy": median == 1.25}
    tail = {"p95": median * 2, "p95_low": median * 1.9, "p95_high": median * 2.2, "calls": 321, "rounds": 20}
    ratio = {
        "times_faster_than_teacher": 1.25 / median,
        "times_faster_low": 1.2 / median,
        "times_faster_high": 1.3 / median,
    }
    drift = {"share": 0.0123, "p": 0.4, "found": False}
    return times | tail | ratio | {"drift": drift, "pictures_per_second": 1000 / median} | others


def judged(at: int, right: int, parents: Mapping[str, tuple[int, int]], classes: tuple[str, ...]) -> dict[str, Any]:
    """What evaluate wrote of the network number `at`; `parents` tell how many pictures were lost and won."""
    accuracy = right / PICTURES
    limits = {"accuracy": accuracy, "accuracy_low": accuracy - 0.031, "accuracy_high": min(1, accuracy + 0.017)}
    top = {"top_accuracy": 0.995, "top_accuracy_low": 0.99 - at / 1000, "top_accuracy_high": 0.999}
    worst = {"name": classes[1], "recall": 0.7 - at / 100, "recall_low": 0.6, "recall_high": 0.8, "pictures": 67}
    against = {
        name: {"agreement": 0.9 + at / 100, "agreement_low": 0.85, "agreement_high": 0.97, "flipped": 0.1 - at / 100}
        | {"lost": lost, "won": won, "worst_class": classes[0], "worst_class_drop": 0.0321 * at}
        for name, (lost, won) in parents.items()
    }
    scores = {"loss": 0.1111 * (at + 1), "macro_f1": 0.8 + at / 100, "calibration_error": 0.01 * (at + 1)}
    spoilt = {"robustness": {"noise": 0.61 + at / 100, "blur": 0.53}, "robustness_mean": 0.57 + at / 200}
    return limits | top | scores | {"worst_class": worst, "against": against} | spoilt


def measured(at: int, limits: Mapping[str, float], size: int) -> dict[str, Any]:
    """What benchmark wrote of the file number `at`."""
    ways = {"one_thread": timing(1.25 / (at + 1)), "all_threads": timing(0.75 / (at + 1)), "gpu": None}
    facts = {"bytes": size, "gzip_bytes": size * 9 // 10, "weights": "float32", "parameters": 1000 + at}
    facts |= {"nonzero": 900 + at, "macs": 5000 + at, "integer_kernels": at, "float_kernels": 18 - at, "joules": None}
    load = {"median": 3.25 + at, "low": 3.0, "high": 9.0, "p95": 9.5, "n": 20}
    memory = {"peak_bytes": 50_000_000 + at, "low": 49_000_000, "high": 51_000_000, "over_runtime_bytes": 7_000_000}
    return {**limits, **facts, **ways, "load": load, "memory": memory, "batches": {"8": ways}}
