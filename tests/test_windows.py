"Windows lose no sample and stitching undoes cutting, whatever the lengths."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ecg_nbdev.windows import STITCH, WindowPlan, cut_windows, plan_windows, stitch, stitch_trace

sizes = st.integers(1, 400)
cases = st.tuples(st.integers(1, 2000), sizes).flatmap(
    lambda c: st.tuples(st.just(c[0]), st.just(c[1]), st.integers(max(1, c[1]//20), c[1])))


@given(cases)
@settings(max_examples=300, deadline=None)
def test_every_sample_is_in_a_window_and_the_last_is_flush(case):
    n, size, stride = case
    starts = plan_windows(n, size, stride)
    count = np.zeros(n, int)
    for s in starts: count[s:s+size] += 1
    assert count.min() >= 1
    assert starts[0] == 0 and max(starts[-1]+size, size) == max(n, size)
    assert (np.diff(starts) >= 1).all() and (np.diff(starts) <= stride).all()


@given(cases)
@settings(max_examples=200, deadline=None)
def test_no_more_windows_than_the_stride_asks_for(case):
    n, size, stride = case
    assert len(plan_windows(n, size, stride)) == (1 if n <= size else int(np.ceil((n-size)/stride))+1)


@given(cases, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_stitching_a_trace_undoes_cutting(case, seed):
    n, size, stride = case
    signal = np.random.default_rng(seed).normal(size=(2, n)).astype(np.float32)
    starts = plan_windows(n, size, stride)
    np.testing.assert_allclose(stitch_trace(cut_windows(signal, starts, size), starts, n), signal, atol=1e-5)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.sampled_from(sorted(STITCH)), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_stitched_probability_lies_between_those_of_the_windows(counts, how, seed):
    rng = np.random.default_rng(seed)
    record = rng.permutation(np.repeat(np.arange(len(counts)), counts))  # windows come in any order
    prob = rng.uniform(size=(len(record), 3))
    together = stitch(prob, record, how)
    assert together.shape == (len(counts), 3)
    for r in range(len(counts)):
        own = prob[record == r]
        assert (together[r] >= own.min(0)-1e-9).all() and (together[r] <= own.max(0)+1e-9).all()


def test_a_record_of_one_window_keeps_its_probability_under_every_rule():
    prob = np.random.default_rng(0).uniform(size=(5, 9))
    for how in STITCH: np.testing.assert_allclose(stitch(prob, np.arange(5), how), prob, atol=1e-12)


def test_a_record_without_a_window_is_refused():
    with pytest.raises(ValueError, match='no window'): stitch([[.5], [.5]], [0, 2])


def test_lengths_of_the_real_files():
    "3,000 to 72,000 samples; 4,999 and 4,500 exist."
    windows = WindowPlan.of([3000, 4000, 4500, 4999, 5000, 5001, 7500, 72000], 5000, 5000)
    assert np.bincount(windows.record).tolist() == [1, 1, 1, 1, 1, 2, 2, 15]
