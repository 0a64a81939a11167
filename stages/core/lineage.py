"""Who is made from whom."""

PARENTS = {"student": "teacher", "control": "teacher", "pruned": "student", "quantized": "pruned"}
