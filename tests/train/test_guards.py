"""Guards: planted spikes, NaN, outliers and collapses; rollbacks that keep the order of the data."""

import json
import math
import random
from types import SimpleNamespace

import pytest

from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.errors import DivergedError
from qwen_core.train.guards import Guards

SETTINGS = GuardSettings(grace_steps=10, window_steps=32, max_bad_steps=3, rollback_distance_steps=20)


def noisy_loss(step: int) -> float:
    """A curve that falls from 8 to 2 nats with some noise."""
    return 2 + 6 * math.exp(-step / 50) + random.Random(step).gauss(0, 0.05)


def take(guards: Guards, step: int, loss: float, grad_norm: float = 1.0, **more):
    """One step as the engine takes it: applied where the guards accept the loss."""
    figures = {"loss": loss, "grad_norm": grad_norm, "is_applied": guards.accept(loss), "loss_scale": 1.0}
    result = SimpleNamespace(**figures | more)
    return guards.settle(step, result, lambda: [f"document {guards.data_step(step)}"])


def run(guards: Guards, steps: range) -> list:
    return [take(guards, step, noisy_loss(step)) for step in steps]


def kinds(decision) -> list[str]:
    return [event.kind for event in decision.events]


def test_a_falling_noisy_curve_raises_nothing():
    assert all(decision.is_good for decision in run(Guards(SETTINGS), range(500)))


@pytest.mark.parametrize(
    ("loss", "kind"), [(9.0, "loss_spike"), (math.nan, "loss_not_finite"), (math.inf, "loss_not_finite")]
)
def test_a_bad_loss_is_refused_and_its_documents_are_named(loss, kind):
    guards = Guards(SETTINGS)
    run(guards, range(100))
    assert guards.accept(noisy_loss(100)) and not guards.accept(loss)
    decision = take(guards, 100, loss)
    assert kinds(decision) == [kind] and not decision.must_roll_back and not guards.is_healthy
    assert decision.events[0].details["documents"] == ["document 100"]
    assert "batch dropped: document 100" in decision.events[0].message
    assert take(guards, 101, noisy_loss(101)).is_good and guards.is_healthy


def test_a_spike_does_not_move_the_bound_but_nan_is_refused_from_the_first_step():
    guards = Guards(SETTINGS)
    assert guards.accept(50.0) and not guards.accept(math.nan)
    run(guards, range(60))
    assert [kinds(take(guards, step, 9.0)) for step in (60, 61)] == [["loss_spike"]] * 2


def test_where_the_recipe_only_warns_a_spike_is_trained_on():
    guards = Guards(SETTINGS.model_copy(update={"spike_action": "warn"}))
    run(guards, range(60))
    decision = take(guards, 60, 9.0)
    assert kinds(decision) == ["loss_spike"] and "applied" in decision.events[0].message and guards.is_healthy


def test_small_noise_on_a_flat_curve_is_no_spike():
    """The deviation is nearly 0 there; a rise of less than a tenth of the median is let through."""
    guards = Guards(SETTINGS)
    for step in range(60):
        take(guards, step, 2.0)
    assert guards.accept(2.19) and not guards.accept(2.21)


def test_an_outlier_of_the_gradient_norm_is_told_but_trained_on_after_clipping():
    guards = Guards(SETTINGS)
    run(guards, range(60))
    decision = take(guards, 60, noisy_loss(60), grad_norm=50.0)
    assert kinds(decision) == ["grad_norm_outlier"] and guards.is_healthy
    assert guards.accept(noisy_loss(61))


def test_infinite_gradients_that_were_applied_are_bad():
    guards = Guards(SETTINGS)
    decision = take(guards, 0, 5.0, grad_norm=math.inf)
    assert kinds(decision) == ["grad_norm_outlier"] and not guards.is_healthy


def test_gradients_that_are_not_finite_without_fp16_are_a_bad_step():
    guards = Guards(SETTINGS)
    decision = take(guards, 0, 5.0, is_applied=False, grad_norm=math.nan)
    assert kinds(decision) == ["grad_norm_outlier"] and not guards.is_healthy


def test_overflow_of_fp16_is_normal_until_the_loss_scale_has_collapsed():
    guards = Guards(SETTINGS)
    overflow = {"is_applied": False, "grad_norm": math.inf}
    assert take(guards, 0, 5.0, loss_scale=65536.0, **overflow).is_good
    decision = take(guards, 1, 5.0, loss_scale=8.0, **overflow)
    assert kinds(decision) == ["loss_scale_collapsed"] and not guards.is_healthy


def test_bad_steps_in_a_row_roll_back_and_the_data_that_led_there_are_passed_over():
    guards = Guards(SETTINGS)
    saved = {}
    for step in range(100):
        if step % 30 == 0:
            saved[step] = guards.state()
        take(guards, step, noisy_loss(step))
    bad = [take(guards, step, math.nan) for step in (100, 101, 102)]
    assert [decision.must_roll_back for decision in bad] == [False, False, True]
    target = guards.rollback_target(list(saved))
    assert target == 60  # 90 is less than 20 steps before the trouble
    event = guards.rolled_back(saved[target], target)
    assert (event.kind, event.step, guards.rollbacks) == ("rollback", 102, 1)
    assert guards.is_healthy and guards.data_step(59) == 59
    assert (
        guards.data_step(60) == 260 and guards.data_step(61) == 261
    )  # 200 steps' data passed over, 60 to 102 among them


def test_data_are_passed_over_at_least_up_to_the_last_bad_batch():
    guards = Guards(SETTINGS.model_copy(update={"rollback_skip_steps": 0}))
    start = guards.state()
    run(guards, range(50))
    for step in (50, 51, 52):
        take(guards, step, math.nan)
    guards.rolled_back(start, 0)
    assert guards.data_step(0) == 53


def test_a_rollback_behind_an_earlier_one_never_reads_the_same_data_again():
    guards = Guards(SETTINGS)
    start = guards.state()
    run(guards, range(40))
    middle = guards.state()
    for target, state in ((40, middle), (0, start)):
        for step in (45, 46, 47):
            take(guards, step, math.nan)
        seen = guards.data_step(47)
        guards.rolled_back(state, target)
        assert guards.data_step(target) > seen
    assert guards.state()["shifts"] == [[0, 248]]  # 47 read the data of 247


def test_a_second_rollback_from_the_same_place_goes_further_back():
    guards = Guards(SETTINGS)
    states = {step: guards.state() for step in (0, 30, 60)}
    for step in range(100, 103):
        take(guards, step, math.nan)
    assert guards.rollback_target(list(states)) == 60
    guards.rolled_back(states[60], 60)
    for step in range(103, 106):
        take(guards, step, math.nan)
    assert guards.rollback_target(list(states)) == 30


def test_after_too_many_rollbacks_the_error_says_what_to_do():
    guards = Guards(SETTINGS)
    start = guards.state()
    for _ in range(3):
        decisions = [take(guards, step, math.nan) for step in range(3)]
        assert decisions[-1].must_roll_back
        guards.rolled_back(start, 0)
    decision = [take(guards, step, math.nan) for step in range(3)][-1]
    assert not decision.must_roll_back and isinstance(decision.error, DivergedError)
    assert kinds(decision) == ["loss_not_finite", "diverged"]
    text = str(decision.error)
    assert (
        "after 3 rollbacks within 2000 steps" in text and "guards.max_rollbacks=3" in text and "learning_rate" in text
    )


def test_without_a_checkpoint_from_before_the_trouble_the_error_names_those_there_are():
    guards = Guards(SETTINGS)
    for step in range(5, 8):
        take(guards, step, math.nan)
    with pytest.raises(DivergedError, match=r"from step 5 on, and no checkpoint .*\[6, 7\].*checkpoint_every_steps"):
        guards.rollback_target([7, 6])


def test_a_resumed_run_decides_like_one_that_never_stopped():
    losses = [noisy_loss(step) if step % 37 else 9.0 + step for step in range(1, 300)]
    whole = Guards(SETTINGS)
    decisions = [take(whole, step, loss) for step, loss in enumerate(losses)]
    resumed, again = Guards(SETTINGS), []
    for step, loss in enumerate(losses):
        if step % 7 == 0:  # stops here, and goes on from the checkpoint
            resumed = Guards(SETTINGS, json.loads(json.dumps(resumed.state())))
        again.append(take(resumed, step, loss))
    assert [d.is_good for d in decisions] == [d.is_good for d in again] and not all(d.is_good for d in decisions)
    assert whole.state() == resumed.state()


def test_a_resumed_run_keeps_the_shifts_of_its_rollbacks():
    guards = Guards(SETTINGS)
    start = guards.state()
    for step in range(3):
        take(guards, step, math.nan)
    guards.rolled_back(start, 0)
    again = Guards(SETTINGS, json.loads(json.dumps(guards.state())))
    assert (again.data_step(0), again.rollbacks) == (200, 1)


def test_the_long_tail_of_small_batches_is_no_spike():
    """Losses that scatter by factors, as those of small fine-tuning batches: none of 2,000 is dropped."""
    guards, noise = Guards(GuardSettings()), random.Random(0)
    losses = [math.exp(noise.gauss(0, 0.4)) for _ in range(2000)]
    assert all(take(guards, step, loss).is_good for step, loss in enumerate(losses)) and not guards.accept(60.0)
