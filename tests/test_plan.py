"""Chunks: they end where they must, and are bounded in steps and in time."""

from hypothesis import given
from hypothesis import strategies as st

from bpc_cli.runs.plan import CHUNK_SECONDS, Schedule

numbers = st.integers(1, 3_000)
distances = st.none() | numbers


@given(numbers, numbers, distances, distances, st.floats(1e-6, 100), st.floats(0.1, 60))
def test_every_stop_is_hit_and_no_chunk_is_too_long(
    n_iters, test_every, save_every, keep_every, seconds_per_step, save_seconds
):
    schedule = Schedule(n_iters, test_every, 1, save_every, save_seconds, keep_every)
    iteration, hit, speed = 0, set(), None
    while iteration < n_iters:
        last = schedule.next_stop(iteration, speed)
        steps = last - iteration
        assert 1 <= steps <= schedule.capacity
        assert steps == 1 or steps * seconds_per_step <= min(save_seconds, CHUNK_SECONDS)
        iteration, speed = last, seconds_per_step
        hit.add(iteration)
    stops = [every for every in (test_every, save_every, keep_every) if every]
    wanted = {i for i in range(1, n_iters + 1) if any(i % every == 0 for every in stops)}
    assert wanted | {n_iters} <= hit


def test_the_first_step_is_run_alone_to_time_it():
    schedule = Schedule(300, 50)
    assert schedule.next_stop(0, None) == 1
    assert schedule.next_stop(1, 1e-3) == 50
    assert schedule.next_stop(50, 1.0) == 55
