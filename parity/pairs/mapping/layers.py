"""Layers that both sides have: those that hold the same leaves."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parity.pairs.mapping.leaves import Node
from parity.pairs.mapping.maps import Map
from parity.pairs.proof import MapRow


@dataclass(frozen=True)
class Layer:
    """A layer of each side that hold the same leaves, and are called as often.

    `product`: JAX has no layers; it is the product with this leaf, and the sum with that one.

    Where one side has several layers stacked in one, PyTorch's name is `whole#i/n`, part i of n, or
    `a+b+c`, those that JAX has in one.
    """

    torch: str
    jax: str
    product: tuple[str, str | None] | None = None


def plain(name: str) -> str:
    """Return the name of the module that a part of it belongs to."""
    return name.split("#")[0].split("+")[-1]


def shared_layers(found: Map, ours: Mapping[str, Node], theirs: Mapping[str, Node]) -> list[Layer]:
    """Return the innermost layers of both sides that hold the same leaves, in PyTorch's order."""
    to_jax: dict[str, set[str]] = {}
    to_torch: dict[str, set[str]] = {}
    for row in found.rows:
        to_jax.setdefault(row.torch, set()).add(row.jax)
        to_torch.setdefault(row.jax, set()).add(row.torch)
    by_leaves: dict[frozenset[str], list[Node]] = {}
    for node in theirs.values():
        held = frozenset(leaf for leaf in node.leaves if leaf in to_torch)
        if node.name and held:
            by_leaves.setdefault(held, []).append(node)
    layers: list[tuple[int, Layer]] = []

    def covers(name: str, taken: Sequence[str]) -> bool:
        return any(other == name or other.startswith(name + ".") for other in taken)

    def innermost(node: Node) -> tuple[int, int, int]:
        return len(node.leaves), -node.name.count("."), node.order

    for node in sorted(ours.values(), key=innermost):
        held = {leaf for leaf in node.leaves if leaf in to_jax}
        image = frozenset().union(*(to_jax[leaf] for leaf in held)) if held else frozenset()
        back = {leaf for name in image for leaf in to_torch[name]}
        if not node.name or not held or back != held:
            continue
        if covers(node.name, [layer.torch for _, layer in layers]):
            continue
        for other in sorted(by_leaves.get(image, ()), key=innermost):
            if not covers(other.name, [layer.jax for _, layer in layers]):
                layers.append((node.order, Layer(node.name, other.name)))
                break
    layers += _stacked_layers(found, ours, theirs, [layer for _, layer in layers])
    return [layer for _, layer in sorted(layers, key=lambda item: item[0])]


def _stacked_layers(
    found: Map, ours: Mapping[str, Node], theirs: Mapping[str, Node], taken: Sequence[Layer]
) -> list[tuple[int, Layer]]:
    """Return layers that one side has in one, and the other side apart."""
    layers: dict[Layer, int] = {}
    whole_j: dict[str, dict[int, str]] = {}
    for row in found.rows:
        mine, other = row.torch.rpartition(".")[0], row.jax.rpartition(".")[0]
        if mine not in ours or other not in theirs or not (mine and other):
            continue
        if any(_within(mine, layer.torch) or _within(other, layer.jax) for layer in taken):
            continue
        if len(ours[mine].leaves) > 2 or len(theirs[other].leaves) > 2:
            continue
        if row.torch_part and not row.jax_part:
            i, n, _ = row.torch_part
            layers[Layer(f"{mine}#{i}/{n}", other)] = ours[mine].order
        elif row.jax_part and not row.torch_part and not is_stacked(row):
            whole_j.setdefault(other, {})[row.jax_part[0]] = mine
    for other, parts in whole_j.items():
        names = [parts[i] for i in sorted(parts)]
        layers[Layer("+".join(names), other)] = max(ours[name].order for name in names)
    return [(order, layer) for layer, order in layers.items()]


def is_stacked(row: MapRow) -> bool:
    """Whether JAX has the part along an axis of its own: several layers in one `vmap` or `scan`."""
    axes = re.sub(r"\([^)]*\)", "group", row.pattern.split("->")[1]).split()
    return row.jax_part is not None and axes[row.jax_part[2]] == "1"


def products_of(layers: Sequence[Layer]) -> dict[str, tuple[str, str | None]]:
    """Return which leaf's product is which layer, and what is added to it."""
    return {layer.product[0]: (layer.jax, layer.product[1]) for layer in layers if layer.product}


def product_layers(found: Map, ours: Mapping[str, Node]) -> list[Layer]:
    """Return PyTorch's layers that are a product with one leaf of a JAX side without layers."""
    layers = []
    for node in sorted(ours.values(), key=lambda node: node.order):
        rows = [row for row in found.rows if row.torch in node.leaves]
        if (
            node.kind not in ("linear", "convolution", "embedding", "transposed")
            or len(node.leaves) > 2
        ):
            continue
        if {row.torch for row in rows} != set(node.leaves) or any(row.jax_part for row in rows):
            continue
        for part in dict.fromkeys(row.torch_part for row in rows):
            mine = [row for row in rows if row.torch_part == part]
            weight = next((row.jax for row in mine if row.torch.endswith(".weight")), None)
            bias = next((row.jax for row in mine if row.torch.endswith(".bias")), None)
            if weight is None:
                continue
            owner, _, last = weight.rpartition(".")
            name = owner if owner and last in ("w", "weight", "kernel", "W") else weight
            own = f"{node.name}#{part[0]}/{part[1]}" if part else node.name
            layers.append(Layer(own, name, (weight, bias)))
    names = [layer.jax for layer in layers]
    return [layer for layer in layers if names.count(layer.jax) == 1]


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(other + ".") or other.startswith(name + ".")
