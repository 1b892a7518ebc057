"""The jaxlib calls behind the C++ device seam: one crossing a launch, no policy.

The C++ worker owns buffers, order and threads. Each local part of a buffer is one jax array whose
sharding lists only this host's devices: XLA looks at the shards alone, so neither global shapes nor
other hosts' devices are needed here, and losing a host never touches an array.
"""

import functools
import gc
import re
import sys
import time

import numpy as np
from jax._src.core import ShapedArray
from jax._src.interpreters import mlir as jax_mlir
from jax._src.lib.mlir import ir
from jax._src.lib.mlir.dialects import hlo
from jax._src.sharding_impls import GSPMDSharding
from jax.sharding import SingleDeviceSharding
from jaxlib import _jax
from jaxlib import xla_client as xc

from causeway.worker import callbacks, dtypes, host_programs, platforms, protobuf

_TOKEN = 17

# The same by MLIR's spelling of element types.
_MLIR_NUMBER = {
    "i1": 1,
    "i8": 2,
    "i16": 3,
    "i32": 4,
    "i64": 5,
    "ui8": 6,
    "ui16": 7,
    "ui32": 8,
    "ui64": 9,
    "f16": 10,
    "f32": 11,
    "f64": 12,
    "complex<f32>": 15,
    "bf16": 16,
    "complex<f64>": 18,
    "f8E5M2": 19,
    "f8E4M3FN": 20,
    "i4": 21,
    "ui4": 22,
    "f8E4M3B11FNUZ": 23,
    "f8E5M2FNUZ": 24,
    "f8E4M3FNUZ": 25,
    "i2": 26,
    "ui2": 27,
    "f8E4M3": 28,
    "f8E3M4": 29,
    "f4E2M1FN": 30,
    "f8E8M0FNU": 31,
}

def _same_memory(views):
    """Whether one put may serve all: under a replicated sharding jaxlib sends the first view to
    every device and never looks at the others."""
    first = views[0]
    return all(v.shape == first.shape and v.ctypes.data == first.ctypes.data for v in views)


@functools.lru_cache(4096)
def _aval(shape, dtype):
    """JAX's description of an array, which takes it as long to make as the array does."""
    return ShapedArray(shape, dtype)


class _Epoch:
    """One XLA client and what hangs on it. Dropped whole when the epoch is over."""

    def __init__(self, client, devices_by_node, node, alone):
        self.client = client
        self.alone = alone  # this host has no peers, ever
        self.devices_by_node = devices_by_node
        self.node = node
        self.local = devices_by_node[node]
        self.shardings = {}

    def sharding(self, ordinals, memory_kind):
        """Sharding over these local devices; every shard has the whole (local) shape."""
        key = (ordinals, memory_kind)
        found = self.shardings.get(key)
        if found is None:
            devices = tuple(self.local[k] for k in ordinals)
            if len(devices) == 1:
                found = SingleDeviceSharding(devices[0], memory_kind=memory_kind or None)
            else:
                found = GSPMDSharding(
                    _jax.DeviceList(devices),
                    xc.HloSharding.replicate(),
                    memory_kind=memory_kind or None,
                )
            self.shardings[key] = (found, devices)
            found = self.shardings[key]
        return found


# Arrays up to this size are copied into a new epoch; larger ones only after so many epochs.
_COPIED_BYTES = 64 << 10
_EPOCHS_KEPT = 4


class _Views:
    """The memory of an array's shards, and through how many changes of epoch it has come."""

    __slots__ = ("blocks", "epochs")

    def __init__(self, blocks):
        self.blocks = blocks
        self.epochs = 0


class _Loaded:
    """An executable on physical devices, with its outputs' handlers ready."""

    __slots__ = ("executable", "handlers", "ordinals", "epoch")

    def __init__(self, executable, handlers, ordinals, epoch):
        self.executable = executable
        self.handlers = handlers
        self.ordinals = ordinals
        self.epoch = epoch


# XLA:CPU goes on with the next part of a combined all-reduce when one part has failed. A peer that
# still waits in the failed part then gets a message of another size, and gloo ends its process. As
# separate operations the rest is never started, and gloo runs them one by one all the same. A host
# without peers has no gloo, and one rendezvous of its devices instead of many.
_DISABLED_PASSES = (b"all-reduce-combiner", b"cpu-all-reduce-combiner")

# CompileOptionsProto.executable_build_options = 3, and in there device_ordinal = 1 and
# debug_options = 3. Concatenated wire messages merge, so appending one of these sets its fields and
# keeps all others, also unknown ones.
_ANY_ORDINAL = protobuf.number(1, -1)
_PASSES = protobuf.content(3, b"".join(protobuf.content(30, name) for name in _DISABLED_PASSES))


def _overrides(options, alone):
    # Debug options that are there at all count as complete: without the client's, XLA's defaults
    # must stay, so nothing is added to them.
    complete = any(protobuf.contents(build, 3) for build in protobuf.contents(options, 3))
    return protobuf.content(3, _ANY_ORDINAL + (_PASSES if complete and not alone else b""))


def _compile_options(options, devices, alone):
    parsed = _jax.CompileOptions.ParseFromString(options + _overrides(options, alone))
    replicas = max(1, parsed.executable_build_options.num_replicas)
    if len(devices) % replicas:
        raise ValueError(
            f"{len(devices)} devices cannot be divided among {replicas} replicas;"
            " use a multiple of the replica count"
        )
    ids = np.array([d.id for d in devices]).reshape(replicas, -1)
    assignment = xc.DeviceAssignment.create(ids)
    parsed.device_assignment = assignment
    parsed.executable_build_options.device_assignment = assignment
    return parsed


def _array_types(kinds):
    """(dtype number, dims) of each MLIR type."""
    out = []
    for kind in kinds:
        if "token" in str(kind):
            out.append((_TOKEN, []))
            continue
        ranked = ir.RankedTensorType(kind)
        element = str(ranked.element_type)
        if element not in _MLIR_NUMBER or not ranked.has_static_shape:
            raise ValueError(f"results of type {kind} are not supported; cast them")
        out.append((_MLIR_NUMBER[element], list(ranked.shape)))
    return out


def _main_types(module):
    """Types of the entry function's parameters (None: of other kinds) and of its results."""
    main = ir.SymbolTable(module.operation)["main"]
    function = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    parameters, _ = _or_error(lambda: _array_types(function.inputs))
    return parameters, _array_types(function.results)


_ALIAS = re.compile(r"\{[\d, ]*\}:\s*\((\d+),\s*\{[\d, ]*\},?\s*(may-alias|must-alias)?\)")


def _donated_inputs(executable):
    """Parameters whose memory the compiled program may reuse for an output."""
    donated = set()
    for module in executable.hlo_modules():
        header = module.to_string().split("\n", 1)[0]
        start = header.find("input_output_alias={")
        if start < 0:
            continue
        depth, end = 0, start
        for end in range(header.index("{", start), len(header)):
            depth += {"{": 1, "}": -1}.get(header[end], 0)
            if depth == 0:
                break
        donated.update(int(m.group(1)) for m in _ALIAS.finditer(header[start : end + 1]))
    return sorted(donated)


def _layout_order(layout):
    text = str(layout)
    inside = text[text.index("{") + 1 :].split("}", 1)[0].split(":", 1)[0]
    return [int(x) for x in inside.split(",") if x.strip()]


def _or_error(function):
    """(value, None) or (None, text): one fact that may be missing must not lose the others."""
    try:
        return function(), None
    except Exception as error:  # pylint: disable=broad-except
        return None, str(error) or type(error).__name__


def _shardings(found):
    if found is None:
        return None
    return [s.SerializeToString() for s in found]


class Backend:
    """What the C++ calls. Methods may be called from any thread; the C++ keeps their order."""

    def __init__(self, platform, num_devices):
        self._name = platform
        self._platform = platforms.create(platform, num_devices)
        self._epoch = None
        # What lives as long as the process need not be looked at in every collection.
        gc.collect()
        gc.freeze()
        self._callbacks_started = False
        self._host_memory = platform == "cpu"

    # ------------------------------------------------------------------ epochs

    def info(self):
        facts = self._platform.facts()
        return (
            facts.name,
            facts.device_kind,
            tuple(facts.memory_kinds),
            facts.version,
            facts.num_devices,
            platforms.compile_target(self._name, _PASSES),
        )

    def open_epoch(
        self, node, coordinator, num_nodes, callback_relay="", worker=0, num_workers=0
    ):
        """Returns what callbacks.launch_calls does, or None without callbacks."""
        # A host without peers needs nobody's addresses, and its collectives stay in its memory.
        alone = num_workers == 1
        client = self._platform.open(None if alone else node, coordinator, num_nodes)
        by_node = {}
        for device in client.devices():
            by_node.setdefault(node if alone else device.process_index, []).append(device)
        if node not in by_node:
            raise RuntimeError(f"INTERNAL: the topology does not list node {node}")
        self._epoch = _Epoch(client, by_node, node, alone)
        if callback_relay and self._name == "cpu":
            callbacks.register()
            if not self._callbacks_started:
                callbacks.start(callback_relay, worker)
                self._callbacks_started = True
        return callbacks.launch_calls() if self._callbacks_started else None

    @staticmethod
    def forget_old_epochs():
        """Frees older clients. What held on to them are circles of references; their threads and
        sockets would wait for the collector's own time."""
        gc.collect()

    def _current(self):
        if self._epoch is None:
            raise RuntimeError("FAILED_PRECONDITION: no epoch is open on this worker yet")
        return self._epoch

    # ---------------------------------------------------------------- programs

    def _canonical_devices(self, epoch, count):
        devices = list(epoch.local)
        for node in sorted(epoch.devices_by_node):
            if len(devices) >= count:
                break
            if node != epoch.node:
                devices.extend(epoch.devices_by_node[node])
        if len(devices) < count:
            raise ValueError(f"a program for {count} devices, but the cluster names {len(devices)}")
        return tuple(devices[:count])

    def _compile(self, epoch, code, options, devices, inspect=None):
        context = jax_mlir.make_ir_context()
        with context, ir.Location.unknown(context):
            try:
                module = hlo.deserialize_portable_artifact(context, code)
            except Exception:  # pylint: disable=broad-except
                module = ir.Module.parse(code)
            callbacks.check_custom_calls(module, self._name)
            facts = inspect(module) if inspect else None
            loaded = epoch.client.compile_and_load(
                module, _jax.DeviceList(devices), _compile_options(options, devices, epoch.alone)
            )
        return loaded, facts

    def compile(self, code, options, count):
        epoch = self._current()
        devices = self._canonical_devices(epoch, count)
        started = time.monotonic()

        def facts(module):
            attributes = module.operation.attributes
            name = "main"
            if "sym_name" in attributes:
                name = ir.StringAttr(attributes["sym_name"]).value
            return name, _main_types(module)

        loaded, (name, (parameters, outputs)) = self._compile(
            epoch, code, options, devices, facts
        )
        seconds = time.monotonic() - started
        # jaxlib reads a layout that token results do not have, and ends the process.
        serialized = None
        if not any(number == _TOKEN for number, _ in outputs):
            serialized, _ = _or_error(loaded.serialize)
        parameter_layouts, parameter_error = _or_error(
            lambda: [_layout_order(x) for x in loaded.get_parameter_layouts()]
        )
        output_layouts, output_error = _or_error(
            lambda: [_layout_order(x) for x in loaded.get_output_layouts()]
        )

        def memory():
            stats = loaded.get_compiled_memory_stats()
            return {n: int(getattr(stats, n)) for n in dir(stats) if n.endswith("_in_bytes")}

        stats, stats_error = _or_error(memory)
        kinds, _ = _or_error(loaded.get_output_memory_kinds)
        code_bytes, _ = _or_error(loaded.size_of_generated_code_in_bytes)
        fingerprint = loaded.fingerprint
        if isinstance(fingerprint, str):
            fingerprint = fingerprint.encode()
        return {
            "serialized": serialized or b"",
            "name": name,
            "fingerprint": fingerprint or b"",
            "parameters": parameters,
            "outputs": outputs,
            "parameter_shardings": _shardings(loaded.get_parameter_shardings()),
            "output_shardings": _shardings(loaded.get_output_shardings()),
            "parameter_layouts": parameter_layouts,
            "parameter_layouts_error": parameter_error,
            "output_layouts": output_layouts,
            "output_layouts_error": output_error,
            "output_memory_kinds": list(kinds[0]) if kinds else [],
            "donated_inputs": _donated_inputs(loaded),
            "memory_stats": stats,
            "memory_stats_error": stats_error,
            "generated_code_bytes": code_bytes or 0,
            "compile_seconds": seconds,
        }

    def _load_on(self, epoch, serialized, code, options, devices):
        if serialized:
            try:
                return epoch.client.deserialize_executable(
                    serialized,
                    _jax.DeviceList(devices),
                    _compile_options(options, devices, epoch.alone),
                )
            except Exception as error:  # pylint: disable=broad-except
                if not code:
                    raise
                # From the head's disk cache, and not for an XLA or a CPU like this one.
                print(
                    f"a cached program does not load here and is compiled: {error}",
                    file=sys.stderr,
                )
        return self._compile(epoch, code, options, devices)[0]

    def load(self, serialized, code, options, places, output_dtypes, output_memory_kinds):
        """places: (node, ordinal) in execution order."""
        epoch = self._current()
        devices = []
        for node, ordinal in places:
            if node not in epoch.devices_by_node:
                raise RuntimeError(f"DATA_LOSS: a device of the program is on no node ({node})")
            devices.append(epoch.devices_by_node[node][ordinal])
        loaded = self._load_on(epoch, serialized, code, options, tuple(devices))
        ordinals = tuple(k for node, k in places if node == epoch.node)
        handlers = []
        kinds = output_memory_kinds or (None,) * len(output_dtypes)
        for number, kind in zip(output_dtypes, kinds):
            sharding, _ = epoch.sharding(ordinals, kind)
            aval = ShapedArray((), np.dtype(bool) if number == _TOKEN else dtypes.of(number))
            handlers.append(_jax.array_result_handler(aval, sharding, True, _skip_checks=True))
        return _Loaded(loaded, handlers, ordinals, epoch)

    def launch(self, loaded, args, protect, run):
        """Returns (outputs, token), without a token where the run has ended well already. `run` is
        what the handler of callbacks is told, or None."""
        for i in protect:
            args[i] = self._copy_all(loaded, args[i])
        named = () if run is None else (run,)
        results = loaded.executable.execute_sharded(args, True, *named)
        outputs, token = results.consume_with_handlers(loaded.handlers), results.consume_token()
        if outputs and outputs[-1].is_ready():
            try:
                token.block_until_ready()
                token = None
            except Exception:  # pylint: disable=broad-except
                pass  # the one who awaits the token hears of it
        return outputs, token

    def _copy_all(self, loaded, array):
        epoch = loaded.epoch
        pieces = array._arrays
        kind = pieces[0].sharding.memory_kind
        sharding, devices = epoch.sharding(loaded.ordinals, kind)
        return xc.batched_copy_array_to_devices_with_sharding(
            [array], [_jax.DeviceList(devices)], [sharding], [xc.ArrayCopySemantics.ALWAYS_COPY]
        )[0]

    def reorder(self, array, order, ordinals):
        """The same shards in another device order."""
        pieces = array._arrays
        return self._assemble([pieces[i] for i in order], tuple(ordinals), self._current())

    def introspect(self, serialized, code, options, count, what):
        epoch = self._current()
        devices = self._canonical_devices(epoch, count)
        loaded = self._load_on(epoch, serialized, code, options, devices)
        if what == "text":
            return "\n\n".join(m.to_string() for m in loaded.hlo_modules()), {}
        if what == "cost":
            found = loaded.cost_analysis()
            return "", {k: float(v) for k, v in found.items() if isinstance(v, (int, float))}
        raise ValueError(f"unknown introspection {what!r}; ask for 'text' or 'cost'")

    @staticmethod
    def load_host_program(kind, name, code, worker, num_workers, devices_per_host):
        """A program that runs in host memory: an object with run(args) and close()."""
        return host_programs.load(kind, name, code, worker, num_workers, devices_per_host)

    # ------------------------------------------------------------------ arrays

    @staticmethod
    def host_view(block, dtype, dims, strides):
        number = dtypes.of(dtype)
        if strides:
            return np.ndarray(dims, number, buffer=block, strides=strides)
        if 0 in dims:
            return np.empty(dims, number)
        return np.ndarray(dims, number, buffer=block)

    def build(self, dtype, memory_kind, ordinals, shards):
        """shards: ("host", block, dims, strides) | ("alias"|"copy", array, index)."""
        epoch = self._current()
        ordinals = tuple(ordinals)
        if all(s[0] == "host" for s in shards):
            views = [self.host_view(s[1], dtype, s[2], s[3]) for s in shards]
            if _same_memory(views):
                return self._put(views, ordinals, memory_kind, epoch)
            pieces = [self._put([v], (k,), memory_kind, epoch) for v, k in zip(views, ordinals)]
            return self._assemble(pieces, ordinals, epoch)
        pieces = []
        for shard, k in zip(shards, ordinals):
            if shard[0] == "host":
                view = self.host_view(shard[1], dtype, shard[2], shard[3])
                pieces.append(self._put([view], (k,), memory_kind, epoch)._arrays[0])
                continue
            piece = shard[1]._arrays[shard[2]]
            if shard[0] == "copy":
                sharding, devices = epoch.sharding((k,), memory_kind)
                piece = xc.batched_copy_array_to_devices_with_sharding(
                    [piece],
                    [_jax.DeviceList(devices)],
                    [sharding],
                    [xc.ArrayCopySemantics.ALWAYS_COPY],
                )[0]
            pieces.append(piece)
        return self._assemble(pieces, ordinals, epoch)

    def _put(self, views, ordinals, memory_kind, epoch):
        sharding, devices = epoch.sharding(ordinals, memory_kind)
        aval = _aval(views[0].shape, views[0].dtype)
        return _jax.batched_device_put(aval, sharding, views, list(devices), True, enable_x64=True)

    def _assemble(self, pieces, ordinals, epoch):
        if len(pieces) == 1:
            return pieces[0]
        first = pieces[0]
        sharding, _ = epoch.sharding(ordinals, first.sharding.memory_kind)
        aval = ShapedArray(first.shape, first.dtype)
        return _jax.ArrayImpl(aval, sharding, pieces, committed=True, _skip_checks=True)

    @staticmethod
    def shard_bytes(arrays):
        """Host bytes of one shard of each array."""
        # A result's shape in Python is nobody's: only the buffer below knows its own.
        return [array._arrays[0].on_device_size_in_bytes() for array in arrays]

    def start_host_copy(self, array, index):
        """(what host_bytes() takes, whether it will not have to wait)"""
        piece = array._arrays[index]
        if not self._host_memory:
            piece._copy_single_device_array_to_host_async()
            return piece, False
        if piece.is_ready():
            try:
                # A view of the device's memory. As long as it lives, a program that is to take the
                # array over works on a copy instead. Asked first whether it failed: see adopt.
                piece.block_until_ready()
                return np.asarray(piece), True
            except Exception:  # pylint: disable=broad-exception-caught
                return piece, False  # asked again, the array says what is wrong with it
        # XLA:CPU starts no transfer (the host could look at the memory itself), so a later
        # donation would delete the array under the reader: read a copy, ordered before it.
        epoch = self._current()
        kind = piece.sharding.memory_kind
        if piece.sharding.device_set.isdisjoint(epoch.local):
            return piece, False  # of an older epoch: nothing can donate it there any more
        device = next(iter(piece.sharding.device_set))
        sharding, devices = epoch.sharding((epoch.local.index(device),), kind)
        copy = xc.batched_copy_array_to_devices_with_sharding(
            [piece], [_jax.DeviceList(devices)], [sharding], [xc.ArrayCopySemantics.ALWAYS_COPY]
        )[0]
        return copy, False

    @staticmethod
    def host_bytes(piece):
        """(address, size, owner, dims, bytes an element, element type) once the dense bytes are
        there."""
        if not isinstance(piece, np.ndarray):
            piece.block_until_ready()  # see adopt
        value = np.asarray(piece)
        shape = value.shape  # not the array's: a result on one device does not know its shape
        value = np.ascontiguousarray(value)
        number = dtypes.number_of(value.dtype)
        address = value.__array_interface__["data"][0]
        return address, value.nbytes, value, shape, value.dtype.itemsize, number

    @staticmethod
    def block(arrays):
        for array in arrays:
            if not array.is_deleted():
                array.block_until_ready()

    @staticmethod
    def await_token(token):
        token.block_until_ready()

    def adopt(self, array, views, ordinals):
        """(array in the current client, views to give here again or None).

        Views are memory of the client in which the array was born: re-viewing an adopted array
        would chain every client of the past together. A client of the past keeps its threads and
        sockets, so small arrays, and those that have come through many epochs, are copied."""
        epoch = self._current()
        pieces = array._arrays
        kind = pieces[0].sharding.memory_kind
        # jaxlib ends the process when asked for the memory of a value whose allocation failed.
        array.block_until_ready()
        if views is None:
            views = _Views([np.asarray(piece) for piece in pieces])
        views.epochs += 1
        blocks = views.blocks
        if views.epochs > _EPOCHS_KEPT or sum(b.nbytes for b in blocks) <= _COPIED_BYTES:
            blocks, views = [np.array(block) for block in blocks], None
        ordinals = tuple(ordinals)
        if len(blocks) == 1:
            return self._put(blocks, ordinals, kind, epoch), views
        singles = [self._put([b], (k,), kind, epoch) for b, k in zip(blocks, ordinals)]
        return self._assemble(singles, ordinals, epoch), views
