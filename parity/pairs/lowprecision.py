"""Parts that ask for less than float64: what is less precise on one side only."""

from parity.pairs.case import Case
from parity.pairs.jaxprs import narrow_types
from parity.pairs.places import place_of
from parity.pairs.proof import Difference


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
