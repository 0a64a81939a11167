"""Ways to fewer bits, by the name that params.yaml has for them. Contract: what is asked, and the
settings of the method, give what was made.

Brevitas takes seconds to import, so what needs it is imported only where it is used.
"""

from collections.abc import Callable, Mapping
from typing import Any

from stages.core import params
from stages.core.quantizing import storing
from stages.core.quantizing.course import Asked, Made


def _integer(asked: Asked, method: params.Integer) -> Made:
    from stages.core.quantizing import integer

    return integer.make(asked, method)


METHODS: Mapping[str, Callable[[Asked, Any], Made]] = {
    "integer": _integer,
    "dynamic_int8": storing.dynamic,
    "float16": storing.half,
    "bfloat16": storing.half,
    "float8": storing.float8,
}
