"The simulator: repeatable, physiological, as frequent as the data set it imitates."
import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from ecg_nbdev.core import CLASSES, LEADS
from ecg_nbdev.sim.patient import draw_heart
from ecg_nbdev.sim.rhythm import KINDS, PATTERNS, early_beats
from ecg_nbdev.sim.synth import (LABEL_SETS, LOOKALIKES, cohort_record, compose_signal, draw_labels, draw_rhythm,
                                 simulate, simulate_cohort)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(CLASSES), max_size=3, unique=True), st.floats(.5, 30),
       st.sampled_from([100, 250, 257.5, 400, 500, 1000]), st.integers(0, 10**6))
def test_any_labels_length_and_rate(labels, seconds, fs, seed):
    record = simulate(labels, seconds=seconds, fs=fs, rng=seed)
    assert record.signal.shape == (12, round(seconds*fs)) and record.signal.dtype == np.float32
    assert np.isfinite(record.signal).all() and np.abs(record.signal).max() < 60
    assert record.labels == tuple(labels) or not labels


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([100, 500]))
def test_limb_leads_agree(seed, fs):
    x = dict(zip(LEADS, simulate(seconds=8, fs=fs, rng=seed).signal.astype(float)))
    tolerance = 1e-5*max(1, max(np.abs(v).max() for v in x.values()))
    np.testing.assert_allclose(x['I']+x['III'], x['II'], atol=tolerance)
    np.testing.assert_allclose(x['aVR']+x['aVL']+x['aVF'], 0, atol=tolerance)
    np.testing.assert_allclose(x['aVF'], (x['II']+x['III'])/2, atol=tolerance)


def test_a_record_depends_on_seed_and_number_alone():
    alone = cohort_record(5, seed=3)
    for cohort in (list(simulate_cohort(8, seed=3)), list(simulate_cohort(6, seed=3, n_workers=2))):
        assert cohort[5].id == alone.id == 'S00006' and cohort[5].labels == alone.labels and cohort[5].age == alone.age
        np.testing.assert_array_equal(cohort[5].signal, alone.signal)
    other = cohort_record(5, seed=4)
    assert other.n != alone.n or not np.array_equal(other.signal, alone.signal)


def test_labels_are_as_frequent_as_in_cpsc2018():
    rng, n, total = np.random.default_rng(0), 20_000, sum(LABEL_SETS.values())
    drawn = [draw_labels(rng) for _ in range(n)]
    for name in CLASSES:
        expected = sum(k for s, k in LABEL_SETS.items() if name in s.split(';'))/total
        assert abs(sum(name in labels for labels in drawn)/n-expected) < 4*np.sqrt(expected/n)
    assert {len(labels) for labels in drawn} == {1, 2, 3}
    assert {';'.join(sorted(labels)) for labels in drawn} <= {';'.join(sorted(s.split(';'))) for s in LABEL_SETS}


def test_first_degree_block_has_a_long_pr_and_others_a_short_one():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for labels, holds in ((('I-AVB',), lambda pr: .2 < pr < .45),
                              (('Normal',), lambda pr: .1 < pr <= .2),
                              (('STD',), lambda pr: .1 < pr <= .2)):
            beats = draw_rhythm(rng, labels, 60, 15)
            assert holds(np.nanmedian((beats.qrs-beats.p)[beats.kind == 0]))


def test_fibrillation_has_no_p_wave_and_is_irregular():
    for seed in range(40):
        beats = draw_rhythm(np.random.default_rng(seed), ('AF',), 70, 30)
        rr = np.diff(beats.qrs)
        assert np.isnan(beats.p).all() and rr.std()/rr.mean() > .05 and rr.min() > .2
        assert beats.waves == [(-1., 31., 'fibrillation')]


def test_bundle_branch_block_is_wide_and_looks_it():
    def qrs(label, seed):
        signal, beats, heart = compose_signal(np.random.default_rng(seed), (label,), 10, 500, noise=0)
        return signal, beats, heart.shapes[0].end
    widths = {name: np.array([qrs(name, s)[2] for s in range(60)]) for name in ('LBBB', 'RBBB', 'Normal')}
    assert (widths['LBBB'] > .12).all() and (widths['Normal'] < .13).all()
    assert np.median(widths['RBBB']) > .11 and (widths['RBBB'] > .085).all()
    v1 = LEADS.index('V1')
    extremes = {}
    for name in ('LBBB', 'RBBB'):
        signals = [qrs(name, s)[0] for s in range(40)]
        extremes[name] = np.median([[x[v1].max(), x[v1].min()] for x in signals], axis=0)
    assert extremes['RBBB'][0] > .4 and extremes['LBBB'][1] < -1


@pytest.mark.parametrize('label,kind', [('PAC', 'atrial'), ('PVC', 'ventricular')])
def test_early_beats_are_early_and_in_the_record(label, kind):
    for seed in range(60):
        beats = draw_rhythm(np.random.default_rng(seed), (label,), 60, 10)
        early = (beats.kind == KINDS.index(kind)) | ((beats.kind == KINDS.index('aberrant')) & (label == 'PAC'))
        at = np.where(np.isnan(beats.qrs), beats.p, beats.qrs)[early]
        assert ((at > 0) & (at < 10)).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(PATTERNS)), st.floats(1.5, 60), st.floats(.35, 1.5))
def test_there_is_always_an_early_beat(seed, pattern, seconds, rr):
    times = np.arange(-rr, seconds+2*rr, rr)
    early = early_beats(np.random.default_rng(seed), times, seconds, pattern)
    assert early[(times >= 0) & (times <= seconds)].any()


def test_st_segments_move_where_they_should():
    j, found = slice(0, 8), {}
    for label in ('STE', 'STD', 'Normal'):
        level = []
        for seed in range(80):
            w = draw_heart(np.random.default_rng(seed), (label,), 60).shapes[0].recovery
            flat = w[w[:, 3] == 1]
            level.append(flat[:, 4:].sum(0)[j])  # I, II, V1–V6
        found[label] = np.median(level, axis=0)
    ii, v3, v5 = 1, 4, 6
    assert found['STE'][v3] > found['Normal'][v3]+.05
    assert found['STD'][v5] < found['Normal'][v5]-.02 and found['STD'][ii] < found['Normal'][ii]-.02


def test_lookalikes_have_no_label():
    for name in LOOKALIKES:
        assert simulate(lookalike=name, rng=1).labels == ()
    marked = [cohort_record(i, seed=1, fs=100, seconds=5, lookalikes=1.) for i in range(8)]
    assert all(r.labels == () for r in marked)


def test_findings_that_labels_do_not_name_stay_unnamed():
    plain, hidden = ([cohort_record(i, seed=6, fs=100, seconds=5, unnamed=share) for i in range(40)]
                     for share in (0., 1.))
    assert [r.labels for r in plain] == [r.labels for r in hidden]
    assert np.mean([np.array_equal(a.signal, b.signal) for a, b in zip(plain, hidden)]) < .5


def test_balanced_labels_are_balanced():
    drawn = [cohort_record(i, seed=2, fs=50, seconds=1, balance=1.).labels for i in range(250)]
    counts = np.array([[c in labels for c in CLASSES] for labels in drawn]).mean(0)
    assert counts.min() > .05 and counts.max() < .28


def test_a_label_that_is_not_a_class_is_refused():
    with pytest.raises(ValueError, match='is not a class'): simulate(('AFIB',))
