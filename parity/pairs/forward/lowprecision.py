"""Parts that ask for less than float64: what is less precise on one side only."""

from parity.pairs.case import Case
from parity.pairs.forward.evidence import Evidence
from parity.pairs.forward.places import name_of, place_of
from parity.pairs.jax_side.precisions import narrow_types
from parity.pairs.proof import Difference
from parity.pairs.torch_side.recorded import Recorded


def low_precision(case: Case) -> tuple[list[Difference], list[str]]:
    """Compare once more as the sides are written; return what is less precise on one side only.

    Where both sides, or one as precise as the user's own `dtype`, it is a note.
    """
    if not case.widen:
        return [], []
    if case.program.single or case.insists:
        side = "JAX" if case.program.single else "PyTorch"
        said = f"a part of the {side} side insists on float32: computed in float64 all the same"
        return [], [said]
    recorded = case.record(widen=False)
    forced = case.force(recorded, widen=False, like=case.forced)
    differences: list[Difference] = []
    notes: dict[str, list[str]] = {}
    for at, evidence in forced.evidence.items():
        wide = case.forced.evidence.get(at)
        if evidence.wrong and wide is not None and not wide.wrong:
            _judge(case, recorded, evidence, differences, notes)
    said = [
        f"{text}: {places[0]}{f' and {len(places) - 1} more' * (len(places) > 1)}"
        for text, places in notes.items()
    ]
    return differences, said


def _judge(
    case: Case,
    recorded: Recorded,
    evidence: Evidence,
    differences: list[Difference],
    notes: dict[str, list[str]],
) -> None:
    """Enter a place that its narrow types change as a difference, or as a note."""
    theirs = narrow_types(one.equation for one in evidence.equations)
    made = [recorded.operations[n] for n in recorded.slice(evidence.key)[0]]
    ours = {o.source: o.dtype for o in made if _bits(o.dtype) < 53}
    lowest = [min(map(_bits, types.values()), default=53) for types in (ours, theirs)]
    side, types = ("PyTorch", ours) if lowest[0] < lowest[1] else ("JAX", theirs)
    kind, torch_place, jax_place = place_of(case, evidence.key)
    if min(lowest) >= _bits(case.pair.dtype) or lowest[0] == lowest[1]:
        side = "both sides" if lowest[0] == lowest[1] else side
        for source, dtype in list(types.items())[:1]:
            text = f"the same function, computed in {dtype} by {side}" + f" ({source})" * bool(
                source
            )
            notes.setdefault(text, []).append(f"{kind} {name_of(torch_place)}")
        return
    source, dtype = min(types.items(), key=lambda item: _bits(item[1]))
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
            fix=f"compute in {case.pair.dtype} at {source}",
            jax_source=source,
        )
    )


def _bits(dtype: str) -> int:
    """Return the digits of a float's significand; 53 for what is no float."""
    return {"float32": 24, "bfloat16": 8, "float16": 11}.get(dtype, 4 if "float8" in dtype else 53)
