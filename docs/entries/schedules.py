"""Schedules and clipping."""

import optax
from torch.nn import utils
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)

from docs.entries import Clip, Schedule

ENTRIES = [
    Schedule("steps", lambda sgd: StepLR(sgd, 3, 0.5),
             lambda: optax.exponential_decay(0.1, 3, 0.5, staircase=True)),
    Schedule("steps, not in stairs", lambda sgd: StepLR(sgd, 3, 0.5),
             lambda: optax.exponential_decay(0.1, 3, 0.5),
             with_options=lambda: optax.exponential_decay(0.1, 3, 0.5, staircase=True),
             note="Optax decays between the steps too"),
    Schedule("milestones", lambda sgd: MultiStepLR(sgd, [3, 7], 0.1),
             lambda: optax.piecewise_constant_schedule(0.1, {3: 0.1, 7: 0.1})),
    Schedule("exponential", lambda sgd: ExponentialLR(sgd, 0.9),
             lambda: optax.exponential_decay(0.1, 1, 0.9)),
    Schedule("cosine", lambda sgd: CosineAnnealingLR(sgd, 12),
             lambda: optax.cosine_decay_schedule(0.1, 12)),
    Schedule("cosine, to a last value", lambda sgd: CosineAnnealingLR(sgd, 12, eta_min=0.01),
             lambda: optax.cosine_decay_schedule(0.1, 12, alpha=0.1)),
    Schedule("cosine, one step shorter", lambda sgd: CosineAnnealingLR(sgd, 12),
             lambda: optax.cosine_decay_schedule(0.1, 11),
             with_options=lambda: optax.cosine_decay_schedule(0.1, 12),
             note="the last step's rate is 0 in Optax"),
    Schedule("cosine, past its end", lambda sgd: CosineAnnealingLR(sgd, 6),
             lambda: optax.cosine_decay_schedule(0.1, 6),
             note="past the end PyTorch's rate rises again, Optax's stays"),
    Schedule("cosine, restarts", lambda sgd: CosineAnnealingWarmRestarts(sgd, 4),
             lambda: optax.join_schedules([optax.cosine_decay_schedule(0.1, 4)] * 3, [4, 8])),
    Schedule("linear", lambda sgd: LinearLR(sgd, 1.0, 0.0, 8),
             lambda: optax.linear_schedule(0.1, 0.0, 8)),
    Schedule("linear by default", lambda sgd: LinearLR(sgd),
             lambda: optax.linear_schedule(0.1 / 3, 0.1, 5)),
    Schedule("constant factor", lambda sgd: ConstantLR(sgd, 0.5, 4),
             lambda: optax.piecewise_constant_schedule(0.05, {4: 2.0})),
    Schedule("polynomial", lambda sgd: PolynomialLR(sgd, 8, 2.0),
             lambda: optax.polynomial_schedule(0.1, 0.0, 2, 8)),
    Schedule("warm-up", lambda sgd: LambdaLR(sgd, lambda t: min(1, (t + 1) / 4)),
             lambda: optax.linear_schedule(0.0, 0.1, 4),
             with_options=lambda: optax.linear_schedule(0.025, 0.1, 3),
             note="PyTorch's rate begins at a quarter, Optax's at 0"),
    Schedule("warm-up, then cosine",
             lambda sgd: SequentialLR(
                 sgd, [LinearLR(sgd, 0.1, 1.0, 4), CosineAnnealingLR(sgd, 8)], [4]),
             lambda: optax.warmup_cosine_decay_schedule(0.01, 0.1, 4, 12)),
    Schedule("warm-up, then cosine, steps counted apart",
             lambda sgd: SequentialLR(
                 sgd, [LinearLR(sgd, 0.1, 1.0, 4), CosineAnnealingLR(sgd, 8)], [4]),
             lambda: optax.warmup_cosine_decay_schedule(0.01, 0.1, 4, 8),
             with_options=lambda: optax.warmup_cosine_decay_schedule(0.01, 0.1, 4, 12),
             note="Optax's decay_steps include the warm-up"),
    Schedule("one cycle", lambda sgd: OneCycleLR(sgd, 0.1, 15, cycle_momentum=False),
             lambda: optax.cosine_onecycle_schedule(15, 0.1),
             note="PyTorch's rate is highest at step 0.3 × 15 - 1, Optax's at int(0.3 × 15)"),
    Schedule("one cycle, linear",
             lambda sgd: OneCycleLR(sgd, 0.1, 15, cycle_momentum=False, anneal_strategy="linear"),
             lambda: optax.linear_onecycle_schedule(15, 0.1),
<<<<<<< HEAD
             note="Optax has a third part, from the first rate to the last"),
=======
             note="Optax has a third part, from the first rate to the last,"
             " PyTorch if three_phase"),
>>>>>>> tidy
    Clip("clipping by the norm", lambda params: utils.clip_grad_norm_(params, 0.1),
         lambda: optax.clip_by_global_norm(0.1)),
    Clip("clipping by the norm, short gradient",
         lambda params: utils.clip_grad_norm_(params, 100.0),
         lambda: optax.clip_by_global_norm(100.0)),
    Clip("clipping by the norm, each leaf", lambda params: utils.clip_grad_norm_(params, 0.1),
         lambda: optax.clip_by_block_rms(0.1),
         note="Optax clips each leaf's root mean square"),
    Clip("clipping by value", lambda params: utils.clip_grad_value_(params, 0.1),
         lambda: optax.clip(0.1)),
]  # fmt: skip
