"""The formulas of the training step by hand, in NumPy float64: what backends are judged against.

They share no code with any backend. Shapes: B images, O = 16 filters, H = W = 26 positions of a
filter, 13×13 pooling windows, K = 10 classes.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64

B1, B2, EPS = 0.9, 0.999, 1e-8
"""Adam's constants, written out again: shared with the backends, a wrong one would not be seen."""

Array = np.ndarray
Images = Float[np.ndarray, "B 1 28 28"]
Labels = Int64[np.ndarray, "B"]
Maps = Float[np.ndarray, "B 16 26 26"]
Pooled = Float[np.ndarray, "B 16 13 13"]
Flat = Float[np.ndarray, "B 2704"]
Logits = Float[np.ndarray, "B 10"]
Conv1 = Float[np.ndarray, "16 1 3 3"]
Fc1 = Float[np.ndarray, "10 2704"]
Conv1Bias = Float[np.ndarray, "16"]
Fc1Bias = Float[np.ndarray, "10"]
Mask = Bool[np.ndarray, "B 16 26 26"]


def conv1(images: Images, weight: Conv1, bias: Conv1Bias) -> Maps:
    """y[b,o,h,w] = bias[o] + Σ_ij weight[o,0,i,j] · x[b,0,h+i,w+j]: no padding, no flipping."""
    y = patches(images) @ weight.reshape(16, 9).T + bias  # (B·26·26, 16)
    return y.reshape(-1, 26, 26, 16).transpose(0, 3, 1, 2)


def relu(x: Maps) -> Maps:
    """Return max(x, 0)."""
    return np.where(x > 0, x, 0)


def pool(x: Maps) -> Pooled:
    """y[b,o,h,w] is the largest of x[b,o,2h:2h+2,2w:2w+2]."""
    return windows(x).max(axis=-1)


def flatten(x: Pooled) -> Flat:
    """y[b,169o+13h+w] = x[b,o,h,w]."""
    return x.reshape(len(x), 2704)


def fc1(x: Flat, weight: Fc1, bias: Fc1Bias) -> Logits:
    """z[b,k] = bias[k] + Σ_n weight[k,n] · x[b,n]."""
    return x @ weight.T + bias


def log_softmax(z: Logits) -> Logits:
    """Return log p: log p[b,k] = z[b,k] − max z[b] − log Σ_j exp(z[b,j] − max z[b])."""
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss(z: Logits, labels: Labels) -> float:
    """L = −1/B Σ_b log p[b,label_b]: mean cross-entropy, in nats."""
    return float(-log_softmax(z)[np.arange(len(z)), labels].mean())


def logits_gradient(z: Logits, labels: Labels) -> Logits:
    """∂L/∂z[b,k] = (p[b,k] − [k = label_b]) / B."""
    return (np.exp(log_softmax(z)) - np.eye(10)[labels]) / len(z)


def fc1_gradients(gradient: Logits, x: Flat) -> tuple[Fc1, Fc1Bias]:
    """∂L/∂weight[k,n] = Σ_b g[b,k] · x[b,n] and ∂L/∂bias[k] = Σ_b g[b,k], with g = ∂L/∂z."""
    return gradient.T @ x, gradient.sum(axis=0)


def pooled_gradient(gradient: Logits, fc1_weight: Fc1) -> Pooled:
    """∂L/∂pool[b,o,h,w] = Σ_k g[b,k] · weight[k,169o+13h+w], with g = ∂L/∂z."""
    return (gradient @ fc1_weight).reshape(-1, 16, 13, 13)


def conv1_gradients(pooled: Pooled, passed: Mask, images: Images) -> tuple[Conv1, Conv1Bias]:
    """∂L/∂weight[o,0,i,j] = Σ_bhw d[b,o,h,w] · x[b,0,h+i,w+j] and ∂L/∂bias[o] = Σ_bhw d[b,o,h,w].

    d is ∂L/∂conv1: ∂L/∂pool of the window that (h, w) lies in where `passed`, and 0 elsewhere.
    """
    d = pooled.repeat(2, axis=2).repeat(2, axis=3) * passed
    weight = d.transpose(1, 0, 2, 3).reshape(16, -1) @ patches(images)
    return weight.reshape(16, 1, 3, 3), d.sum(axis=(0, 2, 3))


def passed(x: Maps) -> Mask:
    """Return where conv1's output x reaches the loss: above 0 and the first largest of its window.

    ReLU's derivative at 0 is 0; of equal values in a pooling window, the first in the order
    (0,0), (0,1), (1,0), (1,1) is the one that is passed on.
    """
    first = windows(relu(x)).argmax(axis=-1)[..., None] == np.arange(4)
    position = first.reshape(*first.shape[:-1], 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return position.reshape(x.shape) & (x > 0)


def patches(images: Images) -> Float[np.ndarray, "B*26*26 9"]:
    """Return the nine pixels x[b,0,h+i,w+j] under the filters at each position, a row each."""
    under = np.lib.stride_tricks.sliding_window_view(images[:, 0], (3, 3), axis=(1, 2))
    return under.reshape(-1, 9)


def windows(x: Maps) -> Float[np.ndarray, "B 16 13 13 4"]:
    """Return the four values of each pooling window, row by row."""
    split = x.reshape(len(x), 16, 13, 2, 13, 2).transpose(0, 1, 2, 4, 3, 5)
    return split.reshape(len(x), 16, 13, 13, 4)


def adam_m(m: Array, g: Array) -> Array:
    """Return m′ = b1·m + (1 − b1)·g (Kingma & Ba 2015, Algorithm 1)."""
    return B1 * m + (1 - B1) * g


def adam_v(v: Array, g: Array) -> Array:
    """Return v′ = b2·v + (1 − b2)·g²."""
    return B2 * v + (1 - B2) * g**2


def adam_update(m: Array, v: Array, *, step: int, lr: float) -> Array:
    """Δ = −lr · m̂ / (√v̂ + eps), with m̂ = m/(1 − b1^step) and v̂ = v/(1 − b2^step).

    `step` counts from 1; m and v are the moments after this step's gradient.
    """
    m_hat, v_hat = m / (1 - B1**step), v / (1 - B2**step)
    return -lr * m_hat / (np.sqrt(v_hat) + EPS)
