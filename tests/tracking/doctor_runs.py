"""Runs with planted faults, and healthy runs that come close to having them.

Each builder takes a seed, so that a test can ask whether a cause is found, or left alone, by luck.
"""

from __future__ import annotations

import numpy as np

from qwen_core.tracking.doctor.record import Curve, Run, make_curve

START = 1_780_000_000.0


def steps_to(last, every):
    """As many trainers log: the first step, then each `every`."""
    return np.unique(np.append(1, np.arange(every, last + 1, every))).astype(float)


def fall(steps, start=9.0, end=3.0, pace=0.15, last=None):
    """A loss as it falls: fast, then slowly, never quite still."""
    share = np.asarray(steps, float) / float(last or np.max(steps) or 1)
    return end + (start - end) * (0.85 * np.exp(-share / pace) + 0.15 * (1 - share))


def curve(name, steps, values, pace=1.0, seconds=None):
    steps = np.asarray(steps, float)
    if seconds is None:
        seconds = START + pace * np.arange(len(steps)) * (float(np.ptp(steps)) / max(1, len(steps) - 1) or 1.0)
    return make_curve(name, np.column_stack((steps, np.asarray(values, float), seconds)))


def run(*curves: Curve, params=None, tags=None, status="FINISHED", siblings=(), run_id="0" * 32, name="run", **more):
    return Run(
        run_id=run_id,
        name=name,
        source="test",
        status=status,
        params={key: str(value) for key, value in (params or {}).items()},
        tags=tags or {},
        curves={one.name: one for one in curves},
        siblings=siblings,
        **{"started": START, **more},
    )


def rates(steps, peak=3e-4, warmup=0.05):
    share = np.asarray(steps, float) / np.max(steps)
    rise = np.minimum(1.0, share / warmup)
    return peak * rise * (0.1 + 0.45 * (1 + np.cos(np.pi * share)))


class Parts:
    """The curves of a healthy run, to be spoilt one at a time."""

    def __init__(self, seed=0, last=1000, every=5, points=20, noise=0.02, gap=0.05, names=None):
        self.random = np.random.default_rng(seed)
        self.last = last
        self.steps = steps_to(last, every)
        self.train = fall(self.steps) + self.random.normal(0, noise, len(self.steps))
        self.held_steps = np.unique(np.round(np.linspace(0, last, points + 1)))
        self.held = fall(self.held_steps, last=last) + gap + self.random.normal(0, 0.2 * noise, len(self.held_steps))
        self.norms = np.exp(self.random.normal(-0.5, 0.2, len(self.steps))) + 3 * np.exp(-self.steps / (0.02 * last))
        self.rates = rates(self.steps)
        self.params = {"pretrain.max_steps": last, "pretrain.grad_clip": 1.0, "pretrain.log_every_steps": every}
        self.tags = {"qwen_core.stage": "pretrain"}
        self.names = names or ("train/loss", "validation/loss", "train/learning_rate", "train/grad_norm")

    def curves(self, *leave_out):
        train, held, rate, norm = self.names
        made = [
            curve(train, self.steps, self.train),
            curve(held, self.held_steps, self.held),
            curve(rate, self.steps, self.rates),
            curve(norm, self.steps, self.norms),
        ]
        return [one for one in made if one.name not in leave_out]

    def run(self, *more, leave_out=(), **about):
        params = {**self.params, **about.pop("params", {})}
        return run(*self.curves(*leave_out), *more, params=params, tags=about.pop("tags", self.tags), **about)


TRAINER = ("loss", "eval_loss", "learning_rate", "grad_norm")


def trainer(seed=0, **about):
    """What transformers' Trainer logs through its MLflowCallback: flat names, summaries at the end."""
    parts = Parts(seed, names=TRAINER, **about)
    parts.params = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": parts.last // 20,
        "logging_steps": 5,
        "max_steps": -1,
        "num_train_epochs": 2.0,
        "max_grad_norm": 1.0,
        "vocab_size": 8000,
    }
    parts.tags = {}
    return parts


def summaries(parts):
    names = {"train_runtime": 1000.0, "train_loss": 4.0, "total_flos": 1e15, "train_samples_per_second": 8.0}
    return [curve(name, [parts.last], [value], seconds=[START + parts.last]) for name, value in names.items()]


def epochs(parts, count):
    return curve("epoch", parts.steps, parts.steps / parts.last * count)


# ------------------------------------------------------------------------------------------------ planted faults


def no_validation(seed):
    parts = trainer(seed)
    return parts.run(*summaries(parts), leave_out=("eval_loss",), params={"eval_strategy": "IntervalStrategy.NO"})


def validation_without_loss(seed):
    parts = trainer(seed)
    timed = [curve(n, parts.held_steps[1:], 5 + parts.held[1:] * 0) for n in ("eval_runtime", "eval_steps_per_second")]
    return parts.run(*timed, leave_out=("eval_loss",))


def unexpected_name(seed):
    parts = Parts(seed)
    return parts.run(curve("figures/B", parts.held_steps, parts.held), leave_out=("validation/loss",))


def validation_in_another_run(seed):
    parts = trainer(seed)
    dot = run(curve("eval_loss", [parts.last], [3.1]), run_id="e" * 32, name="capable-auk-759")
    return parts.run(*summaries(parts), leave_out=("eval_loss",), siblings=(dot,), params={"eval_strategy": "no"})


def validation_in_another_run_seen_from_there(seed):
    trained = trainer(seed).run(leave_out=("eval_loss",), run_id="f" * 32)
    return run(curve("eval_loss", [1000], [3.1]), siblings=(trained,))


def evaluated_once_at_end(seed):
    parts = trainer(seed)
    point = curve("eval_loss", [parts.last], [3.1], seconds=[START + parts.last + 5])
    return parts.run(*summaries(parts), point, leave_out=("eval_loss",), params={"eval_strategy": "no"})


def evaluated_once_at_start(seed):
    parts = Parts(seed, names=("train_loss", "val_loss", "lr-AdamW", "grad_norm"))
    point = curve("val_loss", [0], [9.0], seconds=[START])
    return parts.run(point, leave_out=("val_loss",), tags={}, params={"num_sanity_val_steps": 2})


def interval_longer_than_run(seed):
    parts = trainer(seed, last=400)
    point = curve("eval_loss", [400], [3.1], seconds=[START + 405])
    return parts.run(point, leave_out=("eval_loss",), params={"eval_steps": 500})


def summary_only(seed):
    late = [START + 3600]
    return run(curve("train_loss", [0], [2.2], seconds=late), curve("val_loss", [0], [2.4], seconds=late))


def validation_stopped(seed):
    parts = Parts(seed)
    keep = parts.held_steps <= 500
    parts.held_steps, parts.held = parts.held_steps[keep], parts.held[keep]
    return parts.run()


def too_few_points(seed):
    parts = trainer(seed, points=2)
    return parts.run(params={"eval_strategy": "epoch"})


def single_point(seed):
    parts = Parts(seed)
    return parts.run(curve("validation/loss", [430], [4.0]), leave_out=("validation/loss",))


def constant_step(seed):
    parts = Parts(seed)
    when = START + parts.held_steps
    stuck = curve("validation/loss", 0 * parts.held_steps, parts.held, seconds=when)
    return parts.run(stuck, leave_out=("validation/loss",))


def epoch_as_step(seed):
    parts = Parts(seed, points=9, names=("train_loss_step", "val_loss", "lr", "grad_norm"))
    when = START + parts.held_steps
    held = curve("val_loss", np.arange(len(parts.held)), parts.held, seconds=when)
    return parts.run(held, epochs(parts, 10), leave_out=("val_loss",), tags={})


def other_step_unit(seed):
    parts = Parts(seed)
    tokens = curve("train/tokens", parts.steps, parts.steps * 8192)
    held = curve("validation/loss", parts.held_steps * 8192, parts.held, seconds=START + parts.held_steps)
    return parts.run(held, tokens, leave_out=("validation/loss",))


def time_as_step(seed):
    parts = Parts(seed)
    when = np.round(START + 3.0 * parts.held_steps)
    held = curve("validation/loss", when, parts.held, seconds=when)
    return parts.run(held, leave_out=("validation/loss",))


def steps_go_backwards(seed):
    parts = Parts(seed)
    half = len(parts.steps) // 2
    again = np.concatenate((parts.steps[:half], parts.steps[: len(parts.steps) - half]))
    train = curve("train/loss", again, parts.train, seconds=START + 5.0 * np.arange(len(again)))
    return parts.run(train, leave_out=("train/loss", "train/learning_rate"))


def duplicate_steps(seed):
    parts = Parts(seed)
    steps, when = np.repeat(parts.steps, 4), np.repeat(START + parts.steps, 4)
    values = np.repeat(parts.train, 4) + parts.random.normal(0, 0.1, len(steps))
    return parts.run(curve("train/loss", steps, values, seconds=when), leave_out=("train/loss",))


def gap(seed):
    parts = Parts(seed)
    when = START + parts.steps
    keep = (parts.steps < 420) | (parts.steps > 580)
    train = curve("train/loss", parts.steps[keep], parts.train[keep], seconds=when[keep])
    return parts.run(train, leave_out=("train/loss",))


def run_per_resume(seed):
    parts = Parts(seed)
    pieces = []
    for number, (low, high) in enumerate([(0, 300), (300, 640), (640, 1000)]):
        inside = (parts.steps > low) & (parts.steps <= high)
        held = (parts.held_steps > low) & (parts.held_steps <= high)
        when = START + parts.steps[inside] + 500 * number
        pieces.append(
            run(
                curve("train/loss", parts.steps[inside], parts.train[inside], seconds=when),
                curve("validation/loss", parts.held_steps[held], parts.held[held]),
                run_id=str(number) * 32,
                name=f"part-{number}",
            )
        )
    whole = pieces[1]
    return run(*whole.curves.values(), siblings=(pieces[0], pieces[2]), run_id="1" * 32)


def renamed_metric(seed):
    parts = Parts(seed)
    early = parts.held_steps <= 500
    first = curve("eval_loss", parts.held_steps[early], parts.held[early])
    second = curve("validation/loss", parts.held_steps[~early], parts.held[~early])
    return parts.run(first, second, leave_out=("validation/loss",))


def nan_filtered(seed):
    parts = Parts(seed)
    parts.held[1:] = np.nan
    return parts.run()


def nan_filtered_by_the_trainer(seed):
    parts = trainer(seed)
    parts.train[80:], parts.norms[80:] = 0.0, np.nan
    return parts.run(*summaries(parts))


def diverged(seed):
    parts = Parts(seed)
    parts.train[140:145] += np.array([0.5, 1.5, 3.0, 5.0, 8.0])
    parts.train[145:] = np.nan
    parts.held[15:] = np.nan
    return parts.run(status="FAILED")


def diverged_without_nan(seed):
    parts = Parts(seed)
    parts.train[120:] = 7.4 + parts.random.normal(0, 0.05, len(parts.train) - 120)
    return parts.run()


def loss_spike(seed):
    parts = Parts(seed)
    for place in (60, 100, 150):
        parts.train[place : place + 3] += np.array([2.5, 1.2, 0.5])
    return parts.run()


def jump_after_resume(seed):
    parts = Parts(seed)
    parts.train[100:] += 0.4
    when = START + parts.steps + np.where(parts.steps >= parts.steps[100], 3600, 0)
    return parts.run(curve("train/loss", parts.steps, parts.train, seconds=when), leave_out=("train/loss",))


def jump_down_after_a_rewind(seed):
    parts = Parts(seed)
    again = parts.train[90:] - 0.35
    steps = np.concatenate((parts.steps[:101], parts.steps[90:]))
    values = np.concatenate((parts.train[:101], again))
    train = curve("train/loss", steps, values, seconds=START + 5.0 * np.arange(len(steps)))
    return parts.run(train, leave_out=("train/loss",))


def loss_scale_collapsed(seed):
    parts = Parts(seed)
    scale = np.maximum(1.0, 65536.0 / 2.0 ** (np.arange(len(parts.steps)) // 8))
    return parts.run(curve("train/loss_scale", parts.steps, scale))


def stalled(seed):
    parts = Parts(seed)
    return parts.run(curve("events/stalled_step", [300, 650], [1, 1]))


def guard_events(seed):
    return Parts(seed).run(curve("events/rollback", [440], [1]), curve("events/grad_norm_outlier", [431, 437], [1, 2]))


def stopped_early(seed):
    parts = Parts(seed)
    return parts.run(status="FAILED", params={"pretrain.max_steps": 5000})


def learning_rate_zero(seed):
    parts = Parts(seed)
    parts.rates = parts.rates * 0
    parts.train = 9.0 + parts.random.normal(0, 0.03, len(parts.steps))
    parts.held = 9.0 + 0 * parts.held
    return parts.run()


def schedule_ended_early(seed):
    parts = Parts(seed)
    parts.rates = np.maximum(0.0, 3e-4 * (1 - parts.steps / 600))
    return parts.run()


def constant_loss(seed):
    parts = trainer(seed)
    parts.train, parts.norms = 0 * parts.train + 2.625, 0 * parts.norms
    parts.held = 0 * parts.held + 2.5
    return parts.run()


def learning_rate_too_small(seed):
    parts = Parts(seed)
    parts.rates = parts.rates * 1e-5
    parts.train = 9.0 - 0.03 * parts.steps / 1000 + parts.random.normal(0, 0.03, len(parts.steps))
    parts.held = 9.0 - 0.03 * parts.held_steps / 1000
    return parts.run()


def not_learning(seed):
    parts = trainer(seed)
    parts.train = 8.98 + parts.random.normal(0, 0.03, len(parts.steps))
    parts.held = 8.98 + parts.random.normal(0, 0.005, len(parts.held))
    return parts.run()


def plateau(seed):
    parts = Parts(seed)
    parts.rates = np.full(len(parts.steps), 3e-4)
    parts.rates[:10] = np.linspace(3e-5, 3e-4, 10)
    parts.train = 4.0 + 5.0 * np.exp(-parts.steps / 90) + parts.random.normal(0, 0.02, len(parts.steps))
    parts.held = 4.05 + 5.0 * np.exp(-parts.held_steps / 90)
    return parts.run()


def gradient_always_clipped(seed):
    parts = Parts(seed)
    parts.norms = 6.0 + np.exp(parts.random.normal(0, 0.3, len(parts.steps)))
    return parts.run()


def gradient_logged_after_the_clip(seed):
    parts = Parts(seed)
    parts.norms = np.minimum(1.0, parts.norms * 10)
    return parts.run()


def no_warmup(seed):
    parts = Parts(seed)
    parts.rates = 3e-3 * (0.1 + 0.45 * (1 + np.cos(np.pi * parts.steps / 1000)))
    parts.train[1:9] = 9.0 + np.array([1.0, 2.2, 3.0, 2.6, 2.0, 1.4, 0.8, 0.2])
    parts.norms[1:5] = 40.0
    return parts.run()


def overfitting(seed):
    parts = Parts(seed)
    share = parts.held_steps / parts.last
    parts.held = parts.held + 3.0 * np.maximum(0, share - 0.4) ** 1.5
    return parts.run(params={"pretrain.checkpoint_every_steps": 100})


def validation_equals_training(seed):
    parts = Parts(seed)
    places = np.arange(0, len(parts.steps), 10)
    parts.held_steps, parts.held = parts.steps[places], parts.train[places].copy()
    return parts.run()


def accumulation_scaled_loss(seed):
    parts = trainer(seed)
    parts.train = parts.train * 8
    return parts.run(params={"gradient_accumulation_steps": 8})


def training_loss_averaged(seed):
    parts = trainer(seed, last=1000, every=50, noise=0.005)
    parts.steps = np.arange(50.0, 1001, 50)
    inner = np.arange(1, 1001)
    whole = 2.0 + 7.0 * (1 - inner / 1100) ** 1.5
    parts.train = whole.reshape(20, 50).mean(axis=1)
    parts.held_steps = parts.steps.copy()
    parts.held = whole[49::50] + 0.002
    parts.norms, parts.rates = np.exp(parts.random.normal(-1, 0.2, 20)), rates(parts.steps)
    return parts.run()


def validation_below_training(seed):
    parts = Parts(seed, gap=-0.5)
    return parts.run(params={"model.attention_dropout": 0.1})


def implausibly_low_loss(seed):
    parts = Parts(seed)
    share = parts.steps / 1000
    parts.train = 9.0 * np.exp(-share / 0.1) + 0.02 + np.abs(parts.random.normal(0, 0.003, len(share)))
    parts.held = 9.0 * np.exp(-parts.held_steps / 100) + 0.02
    return parts.run()


def epoch_sawtooth(seed):
    parts = Parts(seed)
    parts.train = parts.train + 0.25 * np.sin(2 * np.pi * parts.steps / 200) + 0.25 * ((parts.steps / 200) % 1.0)
    return parts.run(epochs(parts, 5))


def epoch_sawtooth_without_epochs(seed):
    parts = Parts(seed)
    parts.train = parts.train + 0.6 * ((parts.steps / 100) % 1.0) - 0.3
    return parts.run()


def epoch_staircase(seed):
    parts = trainer(seed)
    parts.train = 2.5 - 0.45 * np.floor((parts.steps - 1) / 250) + parts.random.normal(0, 0.03, len(parts.steps))
    parts.held = 2.5 - 0.05 * parts.held_steps / 1000
    return parts.run(epochs(parts, 4))


def noisy_validation(seed):
    parts = Parts(seed)
    parts.held = 3.5 - 0.1 * parts.held_steps / 1000 + parts.random.normal(0, 0.3, len(parts.held))
    parts.train = 3.4 - 0.1 * parts.steps / 1000 + parts.random.normal(0, 0.02, len(parts.steps))
    return parts.run()


def noisy_training(seed):
    parts = trainer(seed)
    parts.train = np.abs(1.4 - 0.3 * parts.steps / 1000 + parts.random.normal(0, 0.6, len(parts.steps)))
    parts.held = 1.35 - 0.25 * parts.held_steps / 1000
    return parts.run(params={"per_device_train_batch_size": 1})


PLANTED = {
    "validation_in_another_run_seen_from_there": "validation_in_another_run",
    "nan_filtered_by_the_trainer": "nan_filtered",
    "diverged_without_nan": "diverged",
    "jump_down_after_a_rewind": "jump_after_resume",
    "gradient_logged_after_the_clip": "gradient_always_clipped",
    "epoch_sawtooth_without_epochs": "epoch_sawtooth",
}
"""Second ways in which a cause shows itself; any other builder bears its cause's name."""


# ------------------------------------------------------------------------------------- healthy, and close to a fault


def healthy(seed):
    return Parts(seed).run()


def noisy_but_healthy(seed):
    return Parts(seed, noise=0.25).run()


def run_of_three_steps(seed):
    parts = Parts(seed, last=3, every=1, points=3)
    return parts.run()


def run_of_one_point_a_step(seed):
    return Parts(seed, last=12, every=1, points=6).run()


def long_run(seed):
    return Parts(seed, last=100_000, every=10, points=50).run()


def spike_in_the_warm_up(seed):
    parts = Parts(seed)
    parts.train[3:6] += np.array([0.8, 1.5, 0.6])
    return parts.run()


def curriculum(seed):
    """The mix of the data changes twice: the level leaps, and nothing is wrong."""
    parts = Parts(seed)
    for at in (400, 700):
        parts.train[parts.steps >= at] += 0.35
        parts.held[parts.held_steps >= at] += 0.02
    return parts.run()


def resumed_exactly(seed):
    """Some steps are logged twice with the same figures, after a long pause."""
    parts = Parts(seed)
    steps = np.concatenate((parts.steps[:121], parts.steps[110:]))
    values = np.concatenate((parts.train[:121], parts.train[110:]))
    when = START + 5.0 * np.arange(len(steps)) + np.where(np.arange(len(steps)) > 120, 4000, 0)
    return parts.run(curve("train/loss", steps, values, seconds=when), leave_out=("train/loss",))


def healthy_trainer(seed):
    parts = trainer(seed)
    return parts.run(epochs(parts, 2), *summaries(parts))


def healthy_keras(seed):
    """Both losses by epoch, as Keras logs them."""
    random = np.random.default_rng(seed)
    steps = np.arange(30)
    train = 0.3 + 2 * np.exp(-steps / 8) + random.normal(0, 0.005, 30)
    held = 0.35 + 2.05 * np.exp(-steps / 8) + random.normal(0, 0.01, 30)
    return run(curve("loss", steps, train), curve("val_loss", steps, held), tags={"mlflow.autologging": "keras"})


def epochs_without_pattern(seed):
    parts = trainer(seed, noise=0.1)
    return parts.run(epochs(parts, 5))


def log_spaced_validation(seed):
    parts = Parts(seed, last=4096, every=16)
    parts.held_steps = 2.0 ** np.arange(13)
    parts.held = fall(parts.held_steps, last=4096) + 0.05
    return parts.run()


def warm_restarts(seed):
    """The learning rate starts anew each 250 steps, and the loss follows it."""
    parts = Parts(seed)
    phase = (parts.steps / 250) % 1.0
    parts.rates = 3e-4 * (0.05 + 0.475 * (1 + np.cos(np.pi * phase)))
    parts.train = parts.train + 0.3 * (1 - phase) ** 2
    parts.held = parts.held + 0.15
    return parts.run()


def scale_that_settles(seed):
    parts = Parts(seed)
    scale = np.where(parts.steps < 30, 65536.0, 8192.0) * np.where(parts.steps > 500, 2, 1)
    return parts.run(curve("loss_scale", parts.steps, scale))


def often_clipped(seed):
    parts = Parts(seed)
    parts.norms = np.exp(parts.random.normal(0.1, 0.3, len(parts.steps)))
    return parts.run()


def sweep(seed):
    """Runs of the same settings side by side, none of which continues another."""
    others = []
    for number in range(1, 4):
        one = Parts(seed + number).run()
        later = one.curves["train/loss"]
        moved = Curve(later.name, later.steps, later.values, later.seconds + 5000 * number)
        others.append(run(moved, run_id=str(number) * 32))
    return Parts(seed).run(siblings=tuple(others))


def test_loss_at_the_end(seed):
    parts = Parts(seed, names=("train_loss", "val_loss", "lr", "grad_norm"))
    return parts.run(curve("test_loss", [parts.last], [3.1], seconds=[START + 1100]), tags={})


def slowly_finetuned(seed):
    """A good model, tuned gently: little is left to gain."""
    parts = trainer(seed)
    parts.train = 1.32 - 0.12 * parts.steps / 1000 + parts.random.normal(0, 0.06, len(parts.steps))
    parts.held = 1.34 - 0.1 * parts.held_steps / 1000 + parts.random.normal(0, 0.002, len(parts.held))
    return parts.run(params={"learning_rate": 1e-5})


def preference(seed):
    """DPO: from ln 2 downwards, with figures of its own."""
    parts = trainer(seed)
    parts.train = 0.2 + 0.49 * np.exp(-parts.steps / 300) + parts.random.normal(0, 0.02, len(parts.steps))
    parts.held = 0.25 + 0.44 * np.exp(-parts.held_steps / 300)
    return parts.run(curve("eval_rewards/accuracies", parts.held_steps, 0.5 + parts.held_steps / 4000))


def preference_with_a_term_of_its_own(seed):
    """Training adds the loss of the chosen answer, validation does not."""
    parts = Parts(seed)
    parts.train = 2.0 - 0.3 * parts.steps / 1000 + parts.random.normal(0, 0.02, len(parts.steps))
    parts.held = 0.69 - 0.2 * parts.held_steps / 1000
    accuracy = curve("validation/preference_accuracy", parts.held_steps, 0.5 + parts.held_steps / 4000)
    return parts.run(accuracy, tags={"qwen_core.stage": "dpo"})


HEALTHY = (
    *(healthy, noisy_but_healthy, run_of_three_steps, run_of_one_point_a_step, long_run, spike_in_the_warm_up),
    *(curriculum, resumed_exactly, healthy_trainer, healthy_keras, epochs_without_pattern, log_spaced_validation),
    *(warm_restarts, scale_that_settles, often_clipped, sweep, test_loss_at_the_end, slowly_finetuned, preference),
    preference_with_a_term_of_its_own,
)
