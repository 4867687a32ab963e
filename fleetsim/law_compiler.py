# SPDX-License-Identifier: Apache-2.0
"""How Numba is made to compile eight hundred laws that call each other in a minute instead of many.

Numba compiles every function to machine code of its own, with a copy of everything it calls: a law at the bottom of a
deep call tree is optimised and emitted again for each of its callers, and theirs (measured: two thirds of the compile
time). Here a law called by another law stays LLVM code (a *part*); only what Python calls (an *entry*) is linked with all
its parts, optimised, emitted and cached, once.

Rules: nothing here changes what is computed, only when it is compiled. It leans on Numba's internals (the library
classes and the lowering pass), so the version is pinned in the constraints file and `tests/test_law.py` watches it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
from numba.core import compiler_lock, errors, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, _pass_registry, register_pass
from numba.core.postproc import PostProcessor, VariableLifetime
from numba.core.targetconfig import TargetConfig
from numba.core.transforms import canonicalize_cfg
from numba.core.typed_passes import NativeLowering

OBJECTS_PER_LOOK = 1_000_000  # objects made before Python looks for garbage (its own default is 700)
ROOM_ON_THE_STACK = 1 << 17  # values


def _postprocess(self: Any, emit_dels: bool = False, extend_lifetimes: bool = False) -> None:
    """`PostProcessor.run` for functions that are no generators: which variables live where is found out by whoever asks."""
    self.func_ir.blocks = canonicalize_cfg(self.func_ir.blocks)
    self.func_ir.variable_lifetime = VariableLifetime(self.func_ir.blocks)
    self.func_ir.generator_info = None
    if emit_dels:
        self._insert_var_dels(extend_lifetimes=extend_lifetimes)


def _spell_record(self: Any) -> str:
    """`Record.__repr__`, spelled out once for each type."""
    if "law_spelling" not in self.__dict__:
        self.__dict__["law_spelling"] = _SPELL_RECORD(self)
    return str(self.__dict__["law_spelling"])


def _option_values(self: Any) -> dict[str, Any]:
    """`TargetConfig.values`, without a property's call for each of forty options."""
    cls = type(self)
    if cls not in _DEFAULTS:
        _DEFAULTS[cls] = {name: option.default for name, option in cls.options.items()}
    return _DEFAULTS[cls] | self._values


def _call_type(self: Any, context: Any, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
    """`BaseFunction.get_call_type`, found once for each function and its argument types: `a + b` of two integers is asked for ten
    thousand times, and Numba would try all that it knows of `+` each time. What has no answer is asked again."""
    asked = (self._code, tuple(a._code for a in args), tuple((name, a._code) for name, a in kws.items()))
    if asked not in _ANSWERS:
        _ANSWERS[asked] = _GET_CALL_TYPE(self, context, args, kws)
    return _ANSWERS[asked]


_ANSWERS: dict[tuple[Any, ...], Any] = {}  # kept, as the implementations that they stand for are; a type's code is never used again
_GET_CALL_TYPE = types.BaseFunction.get_call_type
_SPELL_RECORD = types.Record.__repr__
_DEFAULTS: dict[type, dict[str, Any]] = {}
_QUICK: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (PostProcessor, "run", _postprocess),
    (types.Record, "__repr__", _spell_record),
    (TargetConfig, "values", _option_values),
    (types.BaseFunction, "get_call_type", _call_type),
)


@contextmanager
def _quick_numba() -> Iterator[None]:
    """While laws are compiled: four of Numba's methods replaced by others that do the same in a fifth of the time (together a
    third of the compile time, measured), and garbage looked for less often, as most of what is made is kept until the end."""
    slow = [getattr(cls, name) for cls, name, _ in _QUICK]
    often = gc.get_threshold()
    gc.set_threshold(OBJECTS_PER_LOOK, *often[1:])
    for cls, name, quick in _QUICK:
        setattr(cls, name, quick)
    try:
        yield
    finally:
        for (cls, name, _), method in zip(_QUICK, slow, strict=True):
            setattr(cls, name, method)
        gc.set_threshold(*often)


def _with_room(work: Callable[[], Any]) -> Any:
    """What `work` returns, called from a frame so large that all that it calls finds room behind it.

    CPython keeps frames in chunks and gives a chunk back as soon as the frame that needed it returns. Laws that call laws are a deep
    recursion; wherever it stood at the end of a chunk, each call there mapped and unmapped 16 KiB: a million times, an eighth of
    the compile time (measured: Python 3.11, 1.66 million page faults, now 0.19). Source: CPython, Python/pystate.c, push_chunk.
    """
    return work()


_with_room.__code__ = _with_room.__code__.replace(co_stacksize=ROOM_ON_THE_STACK)


class PartLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM code of one law, optimised by itself, never emitted. What it calls is linked by the entry that uses it."""

    def finalize(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "external":
                function.linkage = "linkonce_odr"
        self._shared_module = self._final_module
        self._finalized = True


class EntryLibrary(JITCodeLibrary):  # type: ignore[misc]
    """A law that Python calls, with every part it needs, directly or not."""

    def finalize(self) -> None:
        found: dict[Any, None] = {}  # in order, each once
        waiting: list[Any] = list(self._linking_libraries)
        while waiting:
            library = waiting.pop(0)
            if library not in found:
                found[library] = None
                if isinstance(library, PartLibrary):
                    waiting.extend(library._linking_libraries)
        self._linking_libraries: list[Any] = list(found)
        super().finalize()

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:  # nobody else calls its parts: those called once are inlined, and vanish
            if not function.is_declaration and function.linkage.name == "linkonce_odr":
                function.linkage = "internal"
        super()._optimize_final_module()


@register_pass(mutates_CFG=True, analysis_only=False)
class LowerPart(NativeLowering):  # type: ignore[misc]
    """Lowering to LLVM code that callers can use, without machine code of its own."""

    _name = "law_part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.flags.no_compile = True
        super().run_pass(state)
        key = f"law part {state.func_id.unique_name}"  # stands where Numba keeps the address of the compiled function
        state.targetctx.insert_user_function(key, state["cr"].fndesc, [state["library"]])
        state["cr"] = state["cr"]._replace(cfunc=key)
        return True


class LawPasses(PassManager):  # type: ignore[misc]
    """Numba's passes, without describing each of them to listeners: that spells out the type of a host's record, all its fields,
    for every pass of every law (a tenth of the compile time, measured)."""

    def _runPass(self, index: int, step: Any, state: Any) -> None:
        step.analysis = self._analysis
        with errors.new_error_context("Pass {name}", name=step.name()):  # type: ignore[attr-defined]
            changed = [step.run_initialization(state), step.run_pass(state), step.run_finalizer(state)]
        if not _pass_registry.get(type(step)).mutates_CFG:
            return
        if any(changed):
            PostProcessor(state.func_ir).run()
        else:
            state.func_ir.blocks = canonicalize_cfg(state.func_ir.blocks)


def _pipeline(state: Any, library: type[JITCodeLibrary], lowering: type[NativeLowering]) -> list[Any]:
    manager = LawPasses("law")
    steps = DefaultPassBuilder.define_nopython_pipeline(state).passes
    manager.passes = [(lowering if step is NativeLowering else step, name) for step, name in steps]
    manager.finalize()
    state["library"] = library(state.targetctx.codegen(), state.func_id.func_qualname)
    state["library"].enable_object_caching()
    return [manager]


class PartCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's pipeline for a law that other laws call."""

    def define_pipelines(self) -> list[Any]:
        return _pipeline(self.state, PartLibrary, LowerPart)


class EntryCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's pipeline for a law that Python calls. Its parts are compiled on the way."""

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        with _quick_numba():
            return _with_room(lambda: super(EntryCompiler, self).compile_extra(func))

    def define_pipelines(self) -> list[Any]:
        return _pipeline(self.state, EntryLibrary, NativeLowering)


def _as_part(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """The law as other laws see it: compiled on first use in this process, to LLVM code only."""
    part: Any = numba.njit(pipeline_class=PartCompiler, no_cpython_wrapper=True, **(options | {"cache": False}))(function)

    def compile_part(signature: Any) -> Any:
        arguments = tuple(signature)
        if arguments not in part.overloads:
            with compiler_lock.global_compiler_lock:
                part.overloads[arguments] = part._compiler.compile(arguments, None)
        return part.overloads[arguments].entry_point

    part.compile = compile_part  # without the timers that Numba nests, one more per level of calls
    return part


def compile_law(function: Callable[..., Any], options: dict[str, Any], widened: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Any:
    """A compiled function: an entry for Python, a part for laws.

    options   Numba's options for both
    widened   the argument types that laws are offered for those they ask for
    """
    entry: Any = numba.njit(pipeline_class=EntryCompiler, **options)(function)
    part = _as_part(function, options)
    entry.get_call_template = lambda arguments, keywords: part.get_call_template(widened(arguments), keywords)
    entry.get_overload = part.get_overload
    return entry
