"""Vectors of float32 for Numba: a CPU register as a value, so that kernels say what the machine should do.

Numba vectorises loops only when it can prove that nothing aliases, which the dozen arrays of TV-L1 defeat.
Here a kernel loads, computes and stores whole vectors itself. LLVM splits them where the CPU has narrower
registers; only the two estimates (`reciprocal`, `inverse_root`) know the instruction set.
"""

import operator
from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import config, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

_HOST_FEATURES = llvm.get_host_cpu_features()
_TUNED = config.CPU_NAME is None and config.CPU_FEATURES is None
HAS_AVX512 = bool(_TUNED and _HOST_FEATURES.get("avx512f") and _HOST_FEATURES.get("avx512vl"))
LANES = 16
"""Elements of a wide vector; rows are padded to a multiple of it."""

Vector = Any
"""What a kernel's annotation calls a vector; only Numba ever sees one."""
Floats = NDArray[np.float32]


class VectorType(types.Type):
    """Numba's view of a vector: `count` float32 (or int32) elements."""

    def __init__(self, count: int, integer: bool = False) -> None:
        self.count = count
        self.integer = integer
        super().__init__(name=f"{'i32' if integer else 'f32'}x{count}")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, _llvm_type(fe_type))


def _llvm_type(vector: VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(32) if vector.integer else ir.FloatType(), vector.count)


WIDE = VectorType(LANES)
WIDE_INT = VectorType(LANES, integer=True)
FOUR = VectorType(4)
_FLAGS = ("contract", "nsz", "arcp", "reassoc", "afn")


def _define_operator(symbol: Any, instruction: str) -> None:
    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            same = len(args) == 2 and args[0] == args[1] and isinstance(args[0], VectorType)
            return signature(args[0], *args) if same else None

    @lower_builtin(symbol, VectorType, VectorType)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=_FLAGS)


for _symbol, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _define_operator(_symbol, _instruction)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: VectorType) -> Any:
    data = context.make_array(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), _llvm_type(vector).as_pointer())


def _call(builder: Any, name: str, args: list[Any], result: Any) -> Any:
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    function = builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)
    return builder.call(function, args)


def _loader(vector: VectorType) -> Any:
    @intrinsic
    def load(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig.args[0], args[0], args[1], vector)
            return builder.load(pointer, align=4)

        return vector(array, types.intp), codegen

    return load


load = _loader(WIDE)
load_four = _loader(FOUR)


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + lanes] = value."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], sig.args[2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _splatter(vector: VectorType) -> Any:
    @intrinsic
    def splat(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            empty = ir.Constant(_llvm_type(vector), ir.Undefined)
            one = builder.insert_element(empty, args[0], ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
            return builder.shuffle_vector(one, empty, zeros)

        return vector(types.float32), codegen

    return splat


splat = _splatter(WIDE)


def _elementwise(template: str, operands: int) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.return_type.count
        return _call(builder, template.format(lanes), list(args), args[0].type)

    if operands == 1:

        @intrinsic
        def unary(typingctx: Any, a: Any) -> Any:
            return a(a), codegen

        return unary
    if operands == 2:

        @intrinsic
        def binary(typingctx: Any, a: Any, b: Any) -> Any:
            return a(a, a), codegen

        return binary

    @intrinsic
    def ternary(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, a, a), codegen

    return ternary


multiply_add = _elementwise("llvm.fmuladd.v{0}f32", 3)
floor = _elementwise("llvm.floor.v{0}f32", 1)


def _select_by(comparison: str) -> Any:
    @intrinsic
    def choose(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, *args), *args)

        return a(a, a), codegen

    return choose


smaller = _select_by("<")
larger = _select_by(">")


@intrinsic
def reciprocal(typingctx: Any, a: Any) -> Any:
    """1 / a to 14 bits where the CPU has an estimate of that quality, otherwise exact."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if HAS_AVX512:
            mask = ir.Constant(ir.IntType(16), -1)
            return _call(builder, "llvm.x86.avx512.rcp14.ps.512", [args[0], args[0], mask], args[0].type)
        one = ir.Constant(args[0].type, [1.0] * sig.args[0].count)
        return builder.fdiv(one, args[0])

    return a(a), codegen


@intrinsic
def inverse_root(typingctx: Any, a: Any) -> Any:
    """1 / sqrt(a), as `reciprocal`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if HAS_AVX512:
            mask = ir.Constant(ir.IntType(16), -1)
            return _call(builder, "llvm.x86.avx512.rsqrt14.ps.512", [args[0], args[0], mask], args[0].type)
        root = _call(builder, f"llvm.sqrt.v{sig.args[0].count}f32", [args[0]], args[0].type)
        return builder.fdiv(ir.Constant(args[0].type, [1.0] * sig.args[0].count), root)

    return a(a), codegen


def _shifter(first: int) -> Any:
    @intrinsic
    def shift(typingctx: Any, left: Any, right: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(first, first + LANES)))
            return builder.shuffle_vector(args[0], args[1], lanes)

        return left(left, left), codegen

    return shift


from_left = _shifter(LANES - 1)
"""from_left(previous, current)[i] = the element one to the left of current[i]."""
from_right = _shifter(1)
"""from_right(current, following)[i] = the element one to the right of current[i]."""


@intrinsic
def total(typingctx: Any, a: Any) -> Any:
    """Sum of the elements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = ir.Constant(ir.FloatType(), 0.0)
        function_type = ir.FunctionType(ir.FloatType(), [ir.FloatType(), args[0].type])
        name = f"llvm.vector.reduce.fadd.v{sig.args[0].count}f32"
        function = builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)
        return builder.call(function, [zero, args[0]], fastmath=_FLAGS)

    return types.float32(a), codegen


@intrinsic
def to_int(typingctx: Any, a: Any) -> Any:
    """Truncation to int32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptosi(args[0], _llvm_type(sig.return_type))

    return VectorType(a.count, integer=True)(a), codegen


def _lanes(numbers: Iterable[int]) -> ir.Constant:
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


@intrinsic
def spread(typingctx: Any, four: Any) -> Any:
    """A wide vector with each of four elements repeated: aaaabbbbccccdddd."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.shuffle_vector(args[0], args[0], _lanes(lane // 4 for lane in range(LANES)))

    return WIDE(FOUR), codegen


@intrinsic
def fold(typingctx: Any, wide: Any) -> Any:
    """Sum of the four quarters of a wide vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, width = args[0], LANES
        while width > 4:
            width //= 2
            low = builder.shuffle_vector(value, value, _lanes(range(width)))
            high = builder.shuffle_vector(value, value, _lanes(range(width, 2 * width)))
            value = builder.fadd(low, high, flags=_FLAGS)
        return value

    return FOUR(WIDE), codegen


@intrinsic
def store_interleaved(typingctx: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """array[index + 4 i + field] = the field's element i, for four fields."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = builder.shuffle_vector(args[2], args[3], _lanes(range(2 * LANES)))
        second = builder.shuffle_vector(args[4], args[5], _lanes(range(2 * LANES)))
        for part in range(4):
            start = part * LANES // 4
            order = [field * LANES + start + i for i in range(LANES // 4) for field in range(4)]
            offset = builder.add(args[1], ir.Constant(args[1].type, part * LANES))
            pointer = _pointer(context, builder, sig.args[0], args[0], offset, WIDE)
            builder.store(builder.shuffle_vector(first, second, _lanes(order)), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, WIDE, WIDE, WIDE, WIDE), codegen


@intrinsic
def fields(typingctx: Any, array: Any, index: Any) -> Any:
    """The first three of four interleaved fields: array[index + 4 i + field] as three vectors over i."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = []
        for part in range(4):
            offset = builder.add(args[1], ir.Constant(args[1].type, part * LANES))
            pointer = _pointer(context, builder, sig.args[0], args[0], offset, WIDE)
            parts.append(builder.load(pointer, align=4))
        halves = [builder.shuffle_vector(*pair, _lanes(range(2 * LANES))) for pair in (parts[:2], parts[2:])]
        picked = [builder.shuffle_vector(*halves, _lanes(range(field, 4 * LANES, 4))) for field in range(3)]
        return context.make_tuple(builder, sig.return_type, picked)

    return types.UniTuple(WIDE, 3)(array, types.intp), codegen
