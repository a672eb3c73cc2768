"""What the text of a compiled program says that XLA's own cost analysis does not: collectives, and turns of loops.

XLA counts the body of a loop once, whatever its turns (`HloCostAnalysis::HandleWhile`). A loop that a config makes
(`optim.accumulation`, `model.scan_blocks`) has a constant number of turns, which its condition holds; the loop over the
steps of a run has not, and one turn of it is what is asked for.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call")


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind among as many chips, in one step.

    Attributes:
      kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
      chips: how many take part in each.
      count: how many there are.
      bytes: of their results, a chip.
    """

    kind: str
    chips: int
    count: int
    bytes: int

    @property
    def sent_bytes(self) -> float:
        """Bytes that a chip has to send: those of a ring, which is the least there is (Patarasuk & Yuan 2009)."""
        others = (self.chips - 1) / self.chips
        factor = {
            "all-reduce": 2 * others,
            "all-gather": others,
            "reduce-scatter": self.chips - 1,
            "all-to-all": others,
            "collective-permute": 1.0,
        }[self.kind]
        return factor * self.bytes


@dataclass
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str
    is_root: bool


@dataclass
class _Computation:
    instructions: dict[str, _Instruction] = field(default_factory=dict)
    is_entry: bool = False


def collectives_of(program: str, chips: int = 1) -> tuple[Collective, ...]:
    """Returns the collectives of the text of a compiled program, by kind, those in loops as often as they run.

    Args:
      program: the text.
      chips: all that it runs on: what a collective without groups is among.
    """
    computations = _read(program)
    turns = _turns(computations)
    found: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for name, computation in computations.items():
        for instruction in computation.instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind in _KINDS and turns[name]:
                entry = found[kind, _group_size(instruction.rest, chips)]
                entry[0] += turns[name]
                entry[1] += turns[name] * _result_bytes(instruction, kind)
    return tuple(Collective(kind, size, *found[kind, size]) for kind, size in sorted(found) if size > 1)


def collective_bytes(program: str) -> int:
    """Returns the bytes of the results of all collectives in the text of a compiled program."""
    return sum(each.bytes for each in collectives_of(program, chips=2))


def loop_factors(program: str) -> tuple[float, float]:
    """Returns by how much (FLOPs, bytes) of a program exceed those with one turn of each loop: 1 without loops.

    Weighed by the products of each computation and by what its instructions read and write.
    """
    computations = _read(program)
    turns, once = _turns(computations), _turns(computations, looping=False)
    fused = {called for c in computations.values() for i in c.instructions.values()
             if i.opcode == "fusion" for called in _CALLED.findall(i.rest)}  # fmt: skip
    sums = [[0.0, 0.0], [0.0, 0.0]]
    for name, computation in computations.items():
        moved = (
            0.0
            if name in fused
            else sum(_moved(i, computation, computations) for i in computation.instructions.values())
        )
        products = sum(_products(i, computation) for i in computation.instructions.values())
        for place, amount in enumerate((products, moved)):
            sums[place][0] += amount * once[name]
            sums[place][1] += amount * turns[name]
    flops, moved = (many / few if few else 1.0 for few, many in sums)
    return flops, moved


def _read(program: str) -> dict[str, _Computation]:
    computations: dict[str, _Computation] = {}
    current = None
    for line in program.splitlines():
        if begun := _COMPUTATION.match(line):
            current = computations[begun[2]] = _Computation(is_entry=bool(begun[1]))
        elif (found := _INSTRUCTION.match(line)) and current is None:  # a part of a program
            current = computations[""] = _Computation(is_entry=True)
        if found := _INSTRUCTION.match(line):
            root, name, shape, opcode, rest = found.groups()
            assert current is not None
            current.instructions[name] = _Instruction(name, shape, opcode, rest, bool(root))
    return computations


def _turns(computations: dict[str, _Computation], looping: bool = True) -> dict[str, int]:
    """How often each computation runs in one run of the program; not looping: with one turn of each loop."""
    turns: dict[str, int] = defaultdict(int)

    def visit(name: str, times: int) -> None:
        if name not in computations:
            return
        turns[name] += times
        for instruction in computations[name].instructions.values():
            called = _CALLED.findall(instruction.rest)
            for branches in _BRANCHES.findall(instruction.rest):
                called += re.findall(r"%?([\w.\-]+)", branches)
            inner = times
            if instruction.opcode == "while" and looping:
                inner *= _trips(instruction, computations)
            for other in called:
                visit(other, inner)

    for name, computation in computations.items():
        if computation.is_entry:
            visit(name, 1)
    return turns


def _trips(loop: _Instruction, computations: dict[str, _Computation]) -> int:
    """Turns of a loop, where XLA says them or its condition is that an index from 0 is below a constant; else 1."""
    if told := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(told[1])
    named = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    condition = computations.get(named[1]) if named else None
    if condition is None:
        return 1
    root = next((i for i in condition.instructions.values() if i.is_root), None)
    if root is None or root.opcode != "compare" or "direction=LT" not in root.rest:
        return 1
    for operand in _operands(root):
        known = condition.instructions.get(operand)
        if known is not None and known.opcode == "constant" and (number := re.match(r"(\d+)\)", known.rest)):
            return max(1, int(number[1]))
    return 1


def _operands(instruction: _Instruction) -> list[str]:
    return re.findall(r"%([\w.\-]+)", instruction.rest.split("), ")[0])


def _shapes(text: str) -> list[tuple[int, list[int]]]:
    """(bytes of a number, lengths) of each array of a shape."""
    return [
        (_BYTES.get(kind, 4), [int(length) for length in lengths.split(",") if length])
        for kind, lengths in _SHAPE.findall(text)
    ]


def _size(text: str) -> int:
    return sum(width * math.prod(lengths) for width, lengths in _shapes(text))


def _result_bytes(instruction: _Instruction, kind: str) -> int:
    """Bytes of the results alone: a start of some kinds returns its operands before them."""
    if instruction.opcode == f"{kind}-start" and kind in ("all-gather", "reduce-scatter", "collective-permute"):
        arrays = [width * math.prod(lengths) for width, lengths in _shapes(instruction.shape) if lengths]
        return sum(arrays[len(arrays) // 2 :])
    return _size(instruction.shape)


def _group_size(rest: str, chips: int) -> int:
    """How many chips take part, from `replica_groups` in any of its forms."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", rest):
        lengths = {name: int(length) for name, length in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        named = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else lengths[name] for name, part in named)
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return listed[1].count(",") + 1
    return chips


def _moved(instruction: _Instruction, computation: _Computation, computations: dict[str, _Computation]) -> int:
    """Bytes that an instruction reads and writes; of what it slices or writes a slice into, the slice."""
    if instruction.opcode in _FREE:
        return 0
    sizes = [_operand_size(name, computation) for name in _operands(instruction)]
    if instruction.opcode == "dynamic-slice":
        return 2 * _size(instruction.shape)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * sizes[1]
    called = _CALLED.findall(instruction.rest) if instruction.opcode == "fusion" else []
    inner = computations.get(called[0]) if called else None
    if inner is None:
        return _size(instruction.shape) + sum(sizes)
    written = _size(instruction.shape)
    for name, part in inner.instructions.items():
        if part.opcode == "dynamic-update-slice":
            written += _operand_size(_operands(part)[1], inner) - _size(part.shape)
        elif part.opcode == "parameter" and (place := int(part.rest.split(")")[0])) < len(sizes):
            users = [i for i in inner.instructions.values() if name in _operands(i)]
            if all(i.opcode == "dynamic-slice" for i in users):
                sizes[place] = sum(_size(i.shape) for i in users)
            elif all(i.opcode == "dynamic-update-slice" and _operands(i)[0] == name for i in users):
                sizes[place] = 0
    return max(0, written) + sum(sizes)


def _operand_size(name: str, computation: _Computation) -> int:
    return _size(computation.instructions[name].shape) if name in computation.instructions else 0


def _products(instruction: _Instruction, computation: _Computation) -> float:
    """Multiply-adds of a convolution, which on a TPU a matrix product is too; windows past the border are counted."""
    names = _operands(instruction)
    labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.rest)
    if (
        instruction.opcode != "convolution"
        or labels is None
        or len(names) < 2
        or names[1] not in computation.instructions
    ):
        return 0.0
    (_, kernel), *_ = _shapes(computation.instructions[names[1]].shape)
    (_, out), *_ = _shapes(instruction.shape)
    return math.prod(out) * math.prod(kernel) / max(1, kernel[labels[1].index("o")])
