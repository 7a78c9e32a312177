"""How much the names of two layers speak against their being one."""

import difflib
import re

_WORDS = {
    "q": "query",
    "k": "key",
    "v": "value",
    "qkv": "querykeyvalue",
    "fc": "linear",
    "dense": "linear",
    "lin": "linear",
    "ln": "norm",
    "bn": "norm",
    "layernorm": "norm",
    "batchnorm": "norm",
    "rmsnorm": "norm",
    "groupnorm": "norm",
    "layer": "block",
    "layers": "block",
    "blocks": "block",
    "attn": "attention",
    "emb": "embed",
    "embedding": "embed",
    "embeddings": "embed",
    "enc": "encoder",
    "dec": "decoder",
    "wq": "query",
    "wk": "key",
    "wv": "value",
    "wo": "out",
    "o": "out",
    "output": "out",
    "proj": "out",
    "wte": "tok",
    "token": "tok",
    "wpe": "pos",
    "position": "pos",
    "cross": "cross",
    "experts": "expert",
    "router": "gate",
    "downsample": "shortcut",
    "skip": "shortcut",
}
_RIVALS = [
    {"query", "key", "value"},
    {"i", "f", "g", "out"},
    {"r", "z", "n"},
    {"gate", "up", "down"},
    {"encoder", "decoder"},
    {"ih", "hh"},
    {"tok", "pos", "cls"},
    {"self", "cross"},
    {"shortcut", "conv"},
    {"mean", "var"},
]
"""Words of which a name has one: another one speaks for another layer."""


def unlike(a: str, b: str) -> float:
    """Return how much two names speak against each other."""
    words_a, words_b = _words(a), _words(b)
    cost = 0.0
    for rivals in _RIVALS:
        has_a, has_b = rivals & set(words_a), rivals & set(words_b)
        if has_a and has_b:
            cost += -1 if has_a == has_b else 4
    if [w for w in words_a if w.isalpha()] == [w for w in words_b if w.isalpha()] != []:
        cost -= 3  # more than a place or two in the order of calls
    ratio = difflib.SequenceMatcher(None, " ".join(words_a), " ".join(words_b)).ratio()
    return cost + 1.0 * (1 - ratio) + 0.3 * (_numbers(a) != _numbers(b))


def _words(name: str) -> list[str]:
    """Return a name's words; `proj` is one beside no word as `q`, and means `out`."""
    words = []
    for part in re.split(r"[.\[\]'/]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()):
        found = [re.sub(r"\d+$", "", word) or word for word in part.split("_") if word]
        known = [_WORDS.get(word, word) for word in found if word != "proj"]
        if "proj" in found and not any(set(known) & rivals for rivals in _RIVALS):
            known.append("out")
        words += known
    return words


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def told_apart(one: str, other: str) -> tuple[str, str]:
    """Return two names without the words that they share, each in its place."""
    split = [re.split(r"[._]", name) for name in (one, other)]
    if len(split[0]) != len(split[1]):
        return one, other
    differ = [place for place, (a, b) in enumerate(zip(*split, strict=True)) if a != b]
    first, second = ("_".join(words[place] for place in differ) for words in split)
    return first, second
