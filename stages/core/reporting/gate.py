"""What was proved of the files, and how they compute; in words, rows and columns."""

from collections.abc import Mapping

from stages.core import words
from stages.core.params import Export
from stages.core.reporting import sheets, speed, tables
from stages.core.reporting.findings import PORTABLE, SHIPPED, FewerBits, File, Findings, Machine, Operators, Shipped
from stages.core.reporting.sheets import Cell, Row, Table, row

KINDS = ("products", "additions", "pooling", "others")


def files(found: Findings) -> dict[str, tuple[Shipped, File]]:
    """Each file as it was exported and as it was measured; the portable one last, where there is one."""
    names = {name: name for name in SHIPPED} | ({PORTABLE: "portable"} if found.exported.portable else {})
    return {name: (getattr(found.exported, key), getattr(found.benchmarked.files, key)) for name, key in names.items()}


def parity(found: Findings, limits: Export) -> Table:
    """Each file beside the network it was made from; nobody judged that of the portable file on test."""
    rows: list[Row] = []
    for name, (exported, measured) in files(found).items():
        network = getattr(found.evaluated, name, None)
        cells = [
            sheets.share(exported.agreement),
            sheets.points(-exported.accuracy_drop, -exported.drop_high, -exported.drop_low),
            sheets.number(exported.largest_difference, words.tiny(exported.largest_difference)),
            sheets.share(network.accuracy) if network else sheets.absent("not judged"),
            sheets.share(measured.accuracy),
            Cell("passed") if passed(exported, found.exported.pruned, limits) else Cell(warning="not passed"),
        ]
        rows.append(Row(f"{name}.onnx", "", cells))
    heads = ("Same answer on val", "Accuracy on val, points", "Largest logit difference", "Network on test")
    return Table("Parity gate", "File", (*heads, "File on test", "Gate"), rows)


def passed(file: Shipped, plain: Shipped, limits: Export) -> bool:
    alike = file.agreement >= limits.min_agreement and file.accuracy_drop <= limits.max_accuracy_drop
    if not isinstance(file, FewerBits):
        return alike
    accurate = plain.accuracy - file.accuracy <= limits.max_quantized_drop
    return alike and accurate and file.bytes / file.ideal_bytes <= limits.max_over_ideal


def contents(found: Findings) -> Table:
    """Beside an ideal one, in which packed weights take just their bits."""
    rows = [_contents(name, *one) for name, one in files(found).items()]
    heads = ("Bytes", "Ideal bytes", "Above ideal", "Numbers unpacked", "Integer products", "Latency, one thread")
    return Table("What the files hold", "File", heads, rows)


def _contents(name: str, exported: Shipped, measured: File) -> Row:
    return row(
        f"{name}.onnx",
        sheets.count(exported.bytes),
        sheets.count(exported.ideal_bytes),
        sheets.share(exported.bytes / exported.ideal_bytes - 1),
        sheets.count(exported.tensor_bytes),
        tables.kernels(measured),
        speed.time(measured.one_thread),
    )


def operators(found: Operators | None) -> list[Table]:
    """Of the quantized file, in the graph that ONNX Runtime runs."""
    if found is None:
        return []
    sides = (found.integer, found.floating)
    counts = {kind: [getattr(side, kind) for side in sides] for kind in KINDS}
    rows = [Row(kind.capitalize(), "", [_counted(used) for used in both]) for kind, both in counts.items() if any(both)]
    return [Table("Integers or floating point", "Steps", ("On integers", "In floating point"), rows)]


def _counted(used: Mapping[str, int]) -> Cell:
    return sheets.count(sum(used.values()), *(f"{name} {count}" for name, count in used.items()))


def conversions(found: Operators | None) -> str:
    if found is None:
        return ""
    ends = found.first_is_integer, found.last_is_integer
    first, last = ("on integers" if one else "in floating point" for one in ends)
    both = f"The first and the last product run {first}"
    told = both if first == last else f"The first product runs {first}, the last one {last}"
    between = sum(found.conversions.values())
    named = f" ({', '.join(f'{name} {count}' for name, count in found.conversions.items())})" if between else ""
    return (
        f"{told}. {words.plural(between, 'conversion')} between integers and floating point "
        f"{'stands' if between == 1 else 'stand'} among the products{named}; at the ends, pictures and logits need "
        f"{words.plural(sum(found.ends.values()), 'step')}."
    )


def portable(file: FewerBits, machine: Machine) -> str:
    """Whether this processor needs the other file."""
    if file.levels is None:
        return ""
    if not file.saturates:
        return "No two weights are large enough to saturate sums of 16 bits: the file answers alike on all processors."
    need = "does not need it" if machine.integer_products == "exact" else "needs it"
    return (
        f"In {words.plural(file.saturates, 'layer')} weights are large enough to saturate sums of 16 bits, which some "
        f"processors make: there {PORTABLE}.onnx answers as its network, and quantized.onnx may not. The processor of "
        f"the benchmark {need}: {machine.integer_products_because}."
    )
