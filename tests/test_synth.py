"The simulator: repeatable, physiological, as frequent as the data set it imitates."
import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from ecg_nbdev.core import CLASSES, LEADS
from ecg_nbdev.sim.patient import draw_heart
from ecg_nbdev.sim.artifact import REVERSALS, reverse_limbs
from ecg_nbdev.sim.findings import FINDINGS, unknown_classes
from ecg_nbdev.sim.rhythm import KINDS, PATTERNS, early_beats
from ecg_nbdev.sim.synth import (LABEL_SETS, RHYTHMS, cohort_record, compose_signal, draw_labels, draw_rhythm, simulate,
                                 simulate_cohort)


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


def test_a_long_pr_is_labelled_or_unknown():
    for seed in range(60):
        for labels in (('I-AVB',), ('Normal',), ('STD',), ('LBBB',)):
            beats = draw_rhythm(np.random.default_rng(seed), labels, 60, 15)
            pr = np.nanmedian((beats.qrs-beats.p)[beats.kind == 0])
            assert (.2 < pr < .45) if 'I-AVB' in labels else (.1 < pr <= (.2 if 'Normal' in labels else .23))
    records = [simulate('LBBB', seconds=4, fs=50, rng=seed) for seed in range(80)]
    for r in records: assert ('borderline PR' in r.findings) == ('I-AVB' in r.unknown)
    assert 0 < sum('I-AVB' in r.unknown for r in records) < 40


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


@pytest.mark.parametrize('name', FINDINGS)
def test_a_finding_alone_has_no_label_and_says_what_is_unknown(name):
    for seed in range(6):
        r = simulate(findings=name, seconds=6, fs=100, rng=seed)
        assert r.labels == () and name in r.findings and np.isfinite(r.signal).all()
        assert set(FINDINGS[name].unknown) <= set(r.unknown) and r.unknown == unknown_classes((), r.findings)
        if FINDINGS[name].normal == 'no': assert 'Normal' not in r.unknown
    named = simulate(findings=name, seconds=2, fs=100, rng=1, classes=(*CLASSES, name))
    assert named.labels == (name,)


def test_a_normal_recording_has_no_findings():
    records = [simulate('Normal', seconds=4, fs=50, rng=seed) for seed in range(60)]
    assert not any(r.findings or r.unknown for r in records)
    with pytest.raises(ValueError, match="can't stand beside Normal"): simulate('Normal', findings='LVH')


def test_what_is_labelled_is_never_unknown():
    cohort = [cohort_record(i, seed=5, fs=50, seconds=3, findings=.5, balance=.5) for i in range(200)]
    assert not any(set(r.labels) & set(r.unknown) for r in cohort)
    alone = [r for r in cohort if not r.labels]
    assert .2 < len(alone)/len(cohort) < .55 and all(r.findings for r in alone)
    beside = [r for r in cohort if r.labels and r.unknown]
    assert beside and {f for r in alone for f in r.findings} > set(RHYTHMS)


def test_findings_look_like_what_they_are():
    def leads(name, seeds=range(25), age=50.):
        clean = [compose_signal(np.random.default_rng(s), (), 8, 250, age, 'M', (name,) if name else (), noise=0)[0]
                 for s in seeds]
        return {lead: np.median([(x[i].min(), x[i].max()) for x in clean], axis=0) for i, lead in enumerate(LEADS)}
    healthy = leads('')
    assert leads('LVH')['V5'][1] > 1.4*healthy['V5'][1] and leads('low voltage')['I'][1] < .6*healthy['I'][1]
    assert leads('RVH')['V1'][1] > 2*healthy['V1'][1]
    assert leads('left axis')['aVF'][0] < -np.abs(leads('left axis')['aVF'][1]) < 0 < healthy['aVF'].sum()
    assert leads('right axis')['I'].sum() < 0
    assert leads('old anterior infarction')['V2'][1] < healthy['V2'][1]
    assert leads('old inferior infarction')['aVF'][0] < healthy['aVF'][0]-.1
    assert leads('arm reversal')['I'].sum() < 0 < healthy['I'].sum()
    child = leads('', age=3.)
    assert child['aVF'].sum() > 0 and np.abs(child['I']).max() < np.abs(healthy['I']).max()


def test_reversed_limbs_leave_the_chest_alone():
    eight = np.random.default_rng(0).standard_normal((8, 50))
    for name in REVERSALS: np.testing.assert_array_equal(reverse_limbs(eight, name)[2:], eight[2:])
    turned = reverse_limbs(reverse_limbs(reverse_limbs(eight, 'turned'), 'turned'), 'turned')
    np.testing.assert_allclose(turned, eight)                    # three turns of three electrodes
    np.testing.assert_allclose(reverse_limbs(reverse_limbs(eight, 'turned'), 'turned back'), eight)


def test_age_and_sex_are_kept_and_shape_the_beat():
    r = simulate('Normal', seconds=4, fs=100, rng=0, age=33, sex='F')
    assert (r.age, r.sex) == (33, 'F')
    def t_v5(sex):
        hearts = [draw_heart(np.random.default_rng(s), ('Normal',), 40, sex) for s in range(60)]
        return np.median([heart.shapes[0].recovery[2, 4+6] for heart in hearts])
    assert t_v5('M') > 1.15*t_v5('F')
    rates = [60/np.median(np.diff(draw_rhythm(np.random.default_rng(s), ('Normal',), 2, 10).qrs)) for s in range(30)]
    assert 100 < np.median(rates) < 150


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
