"""The map settled, and the forward pass: every difference located, and its cause named."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch

from parity.contract.errors import NondeterminismError
from parity.pairs import causes_losses, causes_spatial  # noqa: F401 - enter their rules
from parity.pairs.causes import Candidate, candidates, together
from parity.pairs.forward import (
    Evidence,
    Forced,
    Key,
    Layer,
    Recorded,
    distance,
    force,
    plain,
    product_layers,
    record,
    shared_layers,
    sources,
)
from parity.pairs.jax_side import JaxSide, Program, jax_side
from parity.pairs.jaxprs import equations, narrow_types, uses
from parity.pairs.leaves import Use, drawn
from parity.pairs.mapping import Map, find_map
from parity.pairs.pair import Accept, Pair, PairError
from parity.pairs.patterns import behind_flatten, inverse, rearranged
from parity.pairs.proof import Difference, Kind, LayerEvidence, MapRow, Place
from parity.pairs.torch_side import Operations, Region, TorchSide, Variant, arrays, mark, torch_side

Progress = Callable[[str, int, int], None]


@dataclass
class Case:
    """Both sides with the same weights, and PyTorch's values at every shared layer."""

    pair: Pair
    torch: TorchSide
    jax: JaxSide
    program: Program
    map: Map
    values: dict[str, np.ndarray]
    """PyTorch's leaves."""
    set_jax: dict[str, np.ndarray]
    """JAX's leaves that PyTorch lacks, set to what makes them vanish."""
    layers: list[Layer]
    used: tuple[dict[str, Use], dict[str, Use]]
    notes: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    recorded: Recorded = field(default_factory=Recorded)
    forced: Forced = field(default_factory=Forced)
    widen: bool = False
    """Whether a part of either side asks for less than float64, and is computed in it all the
    same."""

    @property
    def jax_values(self) -> dict[str, np.ndarray]:
        """JAX's leaves with PyTorch's numbers."""
        return {**self.map.jax_values(self.values, self.jax.leaves), **self.set_jax}

    def record(self, **options: Any) -> Recorded:
        """Run PyTorch's side and keep its values."""
        names = {layer.torch for layer in self.layers}
        return record(self.torch, self.pair.inputs, names, **{"widen": self.widen, **options})

    def force(self, recorded: Recorded | None = None, **options: Any) -> Forced:
        """Run JAX's side with PyTorch's values at every shared layer."""
        return force(
            self.program,
            self.jax_values,
            self.pair.inputs,
            recorded or self.recorded,
            self.layers,
            **{"widen": self.widen, **options},
        )


def prepare(
    pair: Pair, seed: int, weights: str, rows: Sequence[MapRow], progress: Progress
) -> Case:
    """Find the map, draw the weights, and run both sides."""
    progress("weights", 0, 4)
    ours, theirs = torch_side(pair), jax_side(pair)
    mode = Operations()
    for name, value in ours.tensors.items():
        mark(value, f"leaf:{name}")
    with torch.no_grad():
        first = arrays(ours.run(pair.inputs, mode=mode))
        again = arrays(ours.run(pair.inputs))
    _require_equal(first, again, mode)
    used_t: dict[str, Use] = {}
    for operation in mode.made:
        for parent in operation.parents:
            if isinstance(parent, str) and parent.startswith("leaf:"):
                used_t.setdefault(parent[5:], Use(operation.number))
    program = theirs.trace({n: leaf.value for n, leaf in theirs.leaves.items()}, list(pair.inputs))
    used_j = uses(program.jaxpr, program.names)
    live_t = {n: leaf for n, leaf in ours.leaves.items() if n in used_t or leaf.trained}
    live_j = theirs.leaves
    found = find_map(live_t, live_j, used_t, used_j, rows)
    values = {n: leaf.value.astype(np.float64) for n, leaf in ours.leaves.items()}
    if weights == "drawn":
        rng = np.random.default_rng(seed)
        mapped = {row.torch for row in found.rows}
        values |= {n: drawn(ours.leaves[n], rng) for n in ours.leaves if n in mapped}
    case = Case(pair, ours, theirs, program, found, values, {}, [], (used_t, used_j))
    _vanish(case)
    ours.set(values)
    case.layers = shared_layers(found, ours.nodes(), theirs.nodes())
    if not theirs.calls:
        case.layers = product_layers(found, ours.nodes())
    case.widen = bool(narrow_types(equations(program.jaxpr)) or any(o.island for o in mode.made))
    _run(case)
    _check_calls(case)
    return case


def _require_equal(first: Sequence[Any], again: Sequence[Any], mode: Operations) -> None:
    """Raise an error if two runs of PyTorch's side differ."""
    pairs = zip(first, again, strict=True)
    if all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        return
    random = next((o for o in mode.made if "dropout" in o.name or "bernoulli" in o.name), None)
    if random:
        raise PairError(
            f"PyTorch's dropout at {random.source} cannot be switched off: give it"
            " training=self.training"
        )
    raise NondeterminismError(
        "the PyTorch side gives two results for the same inputs; draw no"
        " random numbers in eval mode"
    )


def _vanish(case: Case) -> None:
    """Set what only one side has to what makes it vanish, and say so; the rest is unmapped."""
    for names, leaves, side, used in (
        (case.map.alone_torch, case.torch.leaves, "PyTorch", case.used[0]),
        (case.map.alone_jax, case.jax.leaves, "JAX", case.used[1]),
    ):
        for name in names:
            leaf = leaves[name]
            if name not in used:
                case.notes.append(f"{side}'s {name} never influences the output")
                continue
            if leaf.role == "bias" or (leaf.role == "weight" and leaf.kind == "norm"):
                value = np.full(leaf.shape, 0.0 if leaf.role == "bias" else 1.0)
                target = case.values if side == "PyTorch" else case.set_jax
                target[name] = value
                what = "zero" if leaf.role == "bias" else "one"
                case.notes.append(
                    f"only {side} has {name}, which is set to {what}; a trained one would differ"
                )
            elif leaf.trained:
                case.unmapped.append(f"{side}'s {name} {leaf.shape}")
            else:
                case.notes.append(f"{side}'s buffer {name} has no twin, and keeps its value")


def _run(case: Case) -> None:
    case.recorded = case.record()
    case.forced = case.force()


def _check_calls(case: Case) -> None:
    """Leave out layers that one side calls more often; their callers take their place."""
    for _ in range(4):
        calls: dict[str, int] = {}
        for name, _, call in case.recorded.arrays:
            calls[name] = max(calls.get(name, 0), call + 1)
        unlike = [
            layer
            for layer in case.layers
            if calls.get(layer.torch) != case.forced.calls.get(layer.jax)
        ]
        if not unlike:
            return
        ours = {
            n: node
            for n, node in case.torch.nodes().items()
            if n not in {layer.torch for layer in unlike}
        }
        theirs = {
            n: node
            for n, node in case.jax.nodes().items()
            if n not in {layer.jax for layer in unlike}
        }
        drop = {layer.torch for layer in unlike}
        case.layers = (
            [layer for layer in case.layers if layer.torch not in drop]
            if not theirs
            else shared_layers(case.map, ours, theirs)
        )
        first = unlike[0]
        said = (
            f"{first.torch} is called {calls.get(first.torch, 0)} times in PyTorch"
            f" and {case.forced.calls.get(first.jax, 0)} times in JAX"
        )
        kept = [layer.torch for layer in case.layers]
        kinds = [case.torch.nodes()[plain(first.torch)].kind, "recurrent"]
        if (
            not any(plain(first.torch).startswith(name) for name in kept)
            and kinds[0] != kinds[1]
            and first.product is None
        ):
            raise PairError(f"{said}; call both as often, or give functions to call them with")
        case.notes.append(said)
        _run(case)


def repair(case: Case, progress: Progress) -> None:
    """Settle by the outcome what names and shapes leave open, layer by layer.

    A layer whose output is far off gets the other patterns of its leaves, and the leaves of other
    layers of its shape; what makes it agree to rounding is kept.
    """
    _flattened(case)
    for layer in list(case.layers):
        if not _far(case, layer):
            continue
        progress(f"probing {layer.torch}", 1, 4)
        for rows in itertools.islice(_options(case, layer), 40):
            before = case.map.rows
            case.map.rows = rows
            tried = case.force()
            if sum(e.wrong for e in tried.evidence.values()) < sum(
                e.wrong for e in case.forced.evidence.values()
            ) and not any(e.wrong for e in _outs(tried, layer)):
                case.forced = tried
                break
            case.map.rows = before
    if not case.jax.calls and case.forced.wrong:
        _without_layers(case)


def _outs(forced: Forced, layer: Layer) -> list[Evidence]:
    return [
        e for (key, _), e in forced.evidence.items() if key[0] == layer.torch and key[1] == "out"
    ]


def _far(case: Case, layer: Layer) -> bool:
    return any(e.wrong and e.size > 1e-3 for e in _outs(case.forced, layer))


def _flattened(case: Case) -> None:
    """Permute the inputs of a linear layer's weights where its input was flattened otherwise."""
    changed = False
    for (key, _), (pattern, sizes) in case.forced.arrangements.items():
        found = re.search(r"\(([^)]*)\) -> .*\(([^)]*)\)$", pattern)
        if not found or key[1] != "in":
            continue
        atoms, after = found[1].split(), found[2].split()
        if sorted(atoms) != sorted(after) or atoms == after or len(atoms) < 2:
            continue
        order = [atoms.index(atom) for atom in after]
        full = [*(sizes[a] for a in atoms[:-1]), -1]
        for place, row in enumerate(case.map.rows):
            shape = case.torch.leaves[row.torch].shape
            if (
                row.torch.startswith(plain(key[0]) + ".")
                and len(shape) == 2
                and "(" not in row.pattern
            ):
                full[-1] = shape[1] // int(np.prod(full[:-1]))
                pattern_, sizes_ = behind_flatten(row.pattern, 1, full, order)
                case.map.rows[place] = replace(
                    row, pattern=pattern_, sizes=sizes_, how=f"{row.how}; behind a flatten"
                )
                changed = True
    if changed:
        case.forced = case.force()


def _options(case: Case, layer: Layer) -> Any:
    """Yield the rows with one layer's patterns changed, or its leaves exchanged with another's."""
    rows = case.map.rows
    mine = [n for n, row in enumerate(rows) if row.torch.startswith(plain(layer.torch) + ".")]
    choices = [
        [(rows[n].pattern, dict(rows[n].sizes)), *case.map.choices.get(n, [])[:5]] for n in mine
    ]
    for chosen in itertools.islice(itertools.product(*choices), 1, 24):
        changed = list(rows)
        for n, (pattern, sizes) in zip(mine, chosen, strict=True):
            changed[n] = replace(rows[n], pattern=pattern, sizes=sizes, how="probing")
        yield changed
    parts = [n for n in mine if rows[n].torch_part or rows[n].jax_part]
    groups: dict[tuple[str, Any], list[int]] = {}
    for n in parts:
        groups.setdefault(
            (rows[n].torch if rows[n].torch_part else "", rows[n].jax if rows[n].jax_part else ""),
            [],
        ).append(n)
    sizes_ = {len(group) for group in groups.values()}
    if len(sizes_) == 1 and sizes_ <= {2, 3, 4}:
        for order in itertools.islice(itertools.permutations(range(sizes_.pop())), 1, None):
            changed = list(rows)
            for group in groups.values():
                for place, n in enumerate(group):
                    other = rows[group[order[place]]]
                    changed[n] = (
                        replace(rows[n], torch_part=other.torch_part, how="probing")
                        if (rows[n].torch_part)
                        else replace(rows[n], jax_part=other.jax_part, how="probing")
                    )
            yield changed
    for other in case.layers:
        if other is layer or not _far(case, other):
            continue
        theirs = [n for n, row in enumerate(rows) if row.torch.startswith(plain(other.torch) + ".")]
        if [case.torch.leaves[rows[n].torch].shape for n in mine] != [
            case.torch.leaves[rows[n].torch].shape for n in theirs
        ]:
            continue
        changed = list(rows)
        for a, b in zip(mine, theirs, strict=True):
            changed[a] = replace(rows[a], jax=rows[b].jax, how="probing")
            changed[b] = replace(rows[b], jax=rows[a].jax, how="probing")
        yield changed


def _without_layers(case: Case) -> None:
    """Settle the patterns of a function's parameters: all together, since nothing lies between."""
    rows = case.map.rows
    open_ = [n for n in range(len(rows)) if case.map.choices.get(n)]
    choices = [[(rows[n].pattern, dict(rows[n].sizes)), *case.map.choices[n][:3]] for n in open_]
    for chosen in itertools.islice(itertools.product(*choices), 1, 64):
        case.map.rows = list(rows)
        for n, (pattern, sizes) in zip(open_, chosen, strict=True):
            case.map.rows[n] = replace(rows[n], pattern=pattern, sizes=sizes, how="probing")
        tried = case.force()
        if not tried.wrong:
            case.forced = tried
            return
    case.map.rows = rows


def low_precision(case: Case) -> tuple[list[Difference], list[str]]:
    """Compare once more as the sides are written; return what is less precise on one side only.

    Where both sides, or one as precise as the user's own `dtype`, it is a note.
    """
    if not case.widen:
        return [], []
    if case.program.single:
        return [], ["a part of the JAX side insists on float32: computed in float64 all the same"]
    recorded = case.record(widen=False)
    forced = case.force(recorded, widen=False, like=case.forced)
    allowed = _bits(case.pair.dtype)
    differences, notes = [], {}
    for (key, place), evidence in forced.evidence.items():
        wide = case.forced.evidence.get((key, place))
        if not evidence.wrong or wide is None or wide.wrong:
            continue
        theirs = narrow_types(equation for equation, _ in evidence.equations)
        made = [recorded.operations[n] for n in recorded.slice(key)[0]]
        ours = {o.source: o.dtype for o in made if _bits(o.dtype) < 53}
        lowest = [min(map(_bits, types.values()), default=53) for types in (ours, theirs)]
        kind, torch_place, jax_place = place_of(case, key)
        if min(lowest) >= allowed or lowest[0] == lowest[1]:
            side, types = ("PyTorch", ours) if lowest[0] < lowest[1] else ("JAX", theirs)
            side = "both sides" if lowest[0] == lowest[1] else side
            for source_, dtype in list(types.items())[:1]:
                what = torch_place if isinstance(torch_place, str) else " and ".join(torch_place)
                text = f"the same function, computed in {dtype} by {side} ({source_})"
                notes.setdefault(text, []).append(f"{kind} {what}")
            continue
        side, types = ("PyTorch", ours) if lowest[0] < lowest[1] else ("JAX", theirs)
        source_, dtype = min(types.items(), key=lambda item: _bits(item[1]))
        differences.append(
            Difference(
                stage="forward",
                kind=kind,
                torch=torch_place,
                jax=jax_place,
                size=evidence.size,
                rounding=evidence.rounding / evidence.scale,
                cause="low-precision",
                explanation=f"{side} computes this in {dtype}, the other side not",
                fix=f"compute in {case.pair.dtype} at {source_}",
                torch_source="",
                jax_source=source_,
            )
        )
    said = [
        f"{text}: {places[0]}{f' and {len(places) - 1} more' * (len(places) > 1)}"
        for text, places in notes.items()
    ]
    return differences, said


def _bits(dtype: str) -> int:
    """Return the digits of a float's significand; 53 for what is no float."""
    return {"float32": 24, "bfloat16": 8, "float16": 11}.get(dtype, 4 if "float8" in dtype else 53)


@dataclass
class Found:
    """A difference of the forward pass with what computes it JAX's way."""

    difference: Difference
    corrections: dict[int, Variant]


def differences(case: Case, progress: Progress) -> list[Found]:
    """Locate every difference of the forward pass, and name its cause if the catalogue has it.

    What one cause explains in several places is one difference, at the first of them.
    """
    keys = [key for key in case.recorded.arrays if case.forced.at(key)]
    truth = case.recorded
    found: list[Found] = []
    corrections: dict[int, Variant] = {}
    for number, key in enumerate(keys):
        progress("forward", number, len(keys))
        evidence = [e for e in case.forced.at(key) if _off(e, truth) > e.rounding]
        if not evidence:
            continue
        worst = max(evidence, key=lambda e: e.size)
        causes, changed = _cause(case, key, worst, corrections)
        corrections = {**corrections, **changed}
        truth = case.record(variants=corrections, forced=case.recorded.arrays)
        for cause in causes or [None]:
            found.append(Found(_difference(case, key, worst, cause, changed), changed))
    return found


def _off(evidence: Evidence, truth: Recorded) -> float:
    """Return the error of JAX's value against PyTorch's, computed with what was found so far."""
    if evidence.own is None:
        return evidence.error
    array = truth.arrays[evidence.key][evidence.place]
    sizes = _sizes_of(evidence, array)
    if sizes is None:
        return evidence.error
    return distance(evidence.own, sizes)[0]


def _explained(case: Case, evidence: Evidence, made: dict[tuple[int, int], Any]) -> float:
    """Return how far what a region makes now is from JAX's, over rounding."""
    at = (*evidence.key, evidence.place)
    number = case.recorded.made_by[at]
    value = made.get((number, case.recorded.places[at])) if isinstance(number, int) else None
    if value is None:
        return math.inf
    array = _sizes_of(
        evidence, value.double().numpy() if value.is_floating_point() else value.numpy()
    )
    if array is None or array.shape != evidence.own.shape:
        return math.inf
    error = distance(evidence.own, array)[0]
    if not evidence.rounding:  # integers have none
        return math.inf if error else 0.0
    return error / evidence.rounding


def _sizes_of(evidence: Evidence, array: np.ndarray) -> np.ndarray | None:
    pattern, sizes = evidence.arranged
    try:
        return rearranged(array, pattern, sizes)
    except Exception:  # noqa: BLE001 - einops raises its own; a variant may change a shape
        return None


def _cause(
    case: Case, key: Key, evidence: Evidence, corrections: dict[int, Variant]
) -> tuple[list[Candidate], dict[int, Variant]]:
    """Return the candidates that make PyTorch compute JAX's numbers, and what they replace.

    One is enough, as a rule; two independent mistakes in one region take two. Without any, the
    operation that ends the region is replaced by JAX's numbers.
    """
    numbers, _ = case.recorded.slice(key)
    at = [e for e in case.forced.at(key) if e.wrong]
    region = Region(numbers)
    case.record(variants=corrections, forced=case.recorded.arrays, keep=region)

    def off(variants: dict[int, Variant]) -> float:
        with torch.no_grad():
            try:
                made = region.run({**corrections, **variants})
            except Exception:  # noqa: BLE001 - a variant that does not fit may raise anything
                return math.inf
        return max(_explained(case, e, made) for e in at)

    tried = []
    for candidate, variants in _ways(case, key, numbers, _literals(evidence)):
        left = off(variants)
        if left <= 1:
            return [candidate], variants
        tried.append((left, candidate, variants))
    before = off({})
    tried.sort(key=lambda one: one[0])
    for left, candidate, variants in tried[:3]:
        for _, other, more in tried[:150] if left < 0.5 * before else ():
            if other.cause == candidate.cause or set(variants) & set(more):
                continue
            if off({**variants, **more}) <= 1:
                return [candidate, other], {**variants, **more}
    last = case.recorded.made_by.get((*key, evidence.place))
    return [], {last: _replaced_by(evidence)} if isinstance(last, int) else {}


def _ways(
    case: Case, key: Key, numbers: Sequence[int], literals: Sequence[float]
) -> Iterator[tuple[Candidate, dict[int, Variant]]]:
    """Yield what to try in a region: an operation otherwise, or all that are like it."""
    made = [case.recorded.operations[number] for number in numbers]
    names = {operation.name for operation in made}
    yield from together(made, literals)
    for operation in reversed(made):
        alike = [
            o.number for o in made if (o.name, o.scalars) == (operation.name, operation.scalars)
        ]
        others = _operands(case, key, operation.shape) if operation.name in ("add", "add_") else ()
        for candidate in itertools.chain(candidates(operation, literals), others):
            if candidate.cause == "constant" and {"sin", "cos"} <= names:
                candidate = replace(candidate, cause="rope-base")
            yield candidate, {operation.number: candidate.variant}
            if len(alike) > 1 and operation.number == alike[-1]:
                for step, start in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
                    yield candidate, dict.fromkeys(alike[start::step], candidate.variant)


def _operands(case: Case, key: Key, shape: tuple[int, ...]) -> Iterator[Candidate]:
    """Yield sums with one term left out, or with another value of the model in its place."""

    def of(place: int, value: Any) -> Variant:
        def compute(func: Any, args: Any, kwargs: Any) -> Any:
            if not isinstance(args[1], torch.Tensor):
                raise TypeError
            new = (
                torch.from_numpy(value.copy())
                if value is not None
                else torch.zeros_like(args[place])
            )
            return func(*args[:place], new, *args[place + 1 :], **kwargs)

        return compute

    for place in (0, 1):
        yield Candidate(
            "residual",
            f"JAX adds only one of two terms (the {('second', 'first')[place]})",
            "add both in JAX",
            of(place, None),
        )
    earlier = list(itertools.takewhile(lambda other: other != key, case.recorded.arrays))
    for other in earlier[::-1][:12]:
        for array in case.recorded.arrays[other]:
            if array.shape == shape and array.dtype.kind == "f":
                what = f"what goes {'into' if other[1] == 'in' else 'out of'} {plain(other[0])}"
                for place in (0, 1):
                    yield Candidate(
                        "residual",
                        f"JAX adds {what} instead of another term",
                        "add PyTorch's terms in JAX",
                        of(place, array),
                    )


def _replaced_by(evidence: Evidence) -> Variant:
    pattern, sizes = evidence.arranged
    value = rearranged(np.asarray(evidence.own), inverse(pattern), sizes)

    def compute(func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        first = out[0] if isinstance(out, tuple | list) else out
        new = torch.from_numpy(value.copy()).reshape(first.shape).to(first.dtype)
        return (new, *out[1:]) if isinstance(out, tuple | list) else new

    return compute


def _literals(evidence: Evidence) -> list[float]:
    """Return the numbers in JAX's region, those that PyTorch's constants may be compared with."""
    found: dict[float, None] = {}
    for equation, given in evidence.equations:
        numbers = [x for x in given if x is not None]
        numbers += [v for v in equation.params.values() if isinstance(v, float)]
        found.update((float(f"{x:.7g}"), None) for x in numbers)
        found.update((x, None) for x in numbers)
    return list(found)


def place_of(case: Case, key: Key) -> tuple[Kind, Place, Place]:
    """Return kind and names of a place: a layer, or the two that the code lies between."""
    names = {layer.torch: layer.jax for layer in case.layers}
    layer, way, _ = key
    if way == "out":
        return "inside", plain(layer), names[layer]
    _, sources_ = case.recorded.slice(key)
    before = {name[: -len(":out")] for name in sources_ if name.endswith(":out")}
    order = [known for known in case.layers if plain(known.torch) in before]
    first = order[-1].torch if order else "input"
    theirs = names.get(first, first), names.get(layer, layer)
    return "between", (plain(first), plain(layer)), theirs


def _refined(
    case: Case, key: Key, changed: dict[int, Variant], cause: Candidate | None
) -> tuple[Kind, Place, Place]:
    """Return the place, as near as PyTorch's modules tell it where JAX has no such layers."""
    kind, ours, theirs = place_of(case, key)
    numbers, _ = case.recorded.slice(key)
    if kind != "between":
        return kind, ours, theirs
    owner = {n: _owner(case, case.recorded.operations[n].module) for n in numbers}
    cores = {
        owner[n]
        for n in (changed if cause else numbers)
        if n in owner and (cause or case.recorded.operations[n].name not in _QUIET)
    }
    if len(cores) == 1 and (core := cores.pop()):
        twins = [row.jax for row in case.map.rows if row.torch.startswith(core + ".")]
        return "inside", core, _common(twins) or theirs
    if cause and changed:
        first, last = min(changed), max(changed)
        before = [owner[n] for n in numbers if n < first and owner[n]]
        behind = [owner[n] for n in numbers if n > last and owner[n]]
        ours = before[-1] if before else ours[0], behind[0] if behind else ours[1]
    return kind, ours, theirs


def _owner(case: Case, module: str) -> str:
    """Return the module, or the one around it, that owns leaves; none for the whole model."""
    owners = {name.rpartition(".")[0] for name in case.torch.leaves}
    while module and module not in owners:
        module = module.rpartition(".")[0]
    return module


def _common(names: Sequence[str]) -> str:
    """Return the path that names have in common."""
    parts = [name.split(".")[:-1] for name in names]
    shared = [same[0] for same in zip(*parts, strict=False) if len(set(same)) == 1]
    return ".".join(shared)


_QUIET = ("view", "t", "transpose", "permute", "expand", "empty", "_unsafe_view", "clone")


def _difference(
    case: Case, key: Key, evidence: Evidence, cause: Candidate | None, changed: dict[int, Variant]
) -> Difference:
    kind, ours, theirs = _refined(case, key, changed, cause)
    numbers, _ = case.recorded.slice(key)
    made = [case.recorded.operations[n] for n in numbers]
    told = [o for o in made if o.name not in _QUIET][-4:]
    return Difference(
        stage="forward",
        kind=kind,
        torch=ours,
        jax=theirs,
        size=evidence.size,
        rounding=evidence.rounding / evidence.scale,
        cause=cause.cause if cause else None,
        explanation=cause.explanation if cause else "",
        fix=cause.fix if cause else None,
        torch_source="; ".join(f"{o.name} ({o.source})" for o in told),
        jax_source=sources(evidence.equations),
    )


def accepted(difference: Difference, accept: Sequence[Accept]) -> Difference:
    """Return the difference with the reason why it is meant, if it is."""
    places = [difference.torch] if isinstance(difference.torch, str) else list(difference.torch)
    for one in accept:
        if one.name == difference.cause and any(fnmatch(place, one.at) for place in places):
            return replace(difference, accepted=one.because or "accepted")
    return difference


def grouped(found: Sequence[Difference]) -> list[Difference]:
    """Return differences of one kind as one, with the further places that it is seen at."""
    groups: dict[Any, list[Difference]] = {}
    for one in found:
        pattern = re.sub(r"\d+", "*", str(one.torch))
        groups.setdefault((one.stage, one.kind, pattern, one.cause, one.accepted), []).append(one)
    result = []
    for group in groups.values():
        also = [_name(one.torch) for one in group[1:]]
        result.append(replace(group[0], also=also, size=max(one.size for one in group)))
    return result


def _name(place: Place) -> str:
    return place if isinstance(place, str) else " and ".join(place)


def layer_table(case: Case) -> list[LayerEvidence]:
    """Return the evidence at each layer, in PyTorch's order."""
    found = []
    for layer in case.layers:
        by_way = {
            way: [
                e
                for (key, _), e in case.forced.evidence.items()
                if key[0] == layer.torch and key[1] == way
            ]
            for way in ("in", "out")
        }
        sizes = {way: max((e.size for e in all_), default=None) for way, all_ in by_way.items()}
        every = [*by_way["in"], *by_way["out"]]
        shape = by_way["out"][0].shape if by_way["out"] else ()
        rounding = max((e.rounding / e.scale for e in every), default=0.0)
        found.append(
            LayerEvidence(
                torch=layer.torch,
                jax=layer.jax,
                shape=shape,
                before=sizes["in"],
                inside=sizes["out"],
                rounding=rounding,
            )
        )
    return found
