"""Explanations of the model that ships, on simulated recordings.

They are faithful to what the model does, complete, and there is one for every kind of model."""
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use('agg')
from ecg_nbdev.bundle import load_pretrained
from ecg_nbdev.core import CLASSES, LEADS, ECGError, Record
from ecg_nbdev.explain import (_class_log_odds, explain_record, integrated_gradients, occlude_leads, occlude_time,
    plot_explanation, probability_drop)
from ecg_nbdev.labels import LabelSets
from ecg_nbdev.models import create_model
from ecg_nbdev.predictor import Predictor
from ecg_nbdev.sim.rhythm import KINDS
from ecg_nbdev.sim.synth import compose_signal, simulate

pytest.importorskip('captum')

@pytest.fixture(scope='module')
def model(): return load_pretrained()

def probability(model, record):
    return model.class_prob(model.outputs([model.preparation(record.signal, record.fs)]))[0]

def with_one_pvc(n):
    "Recordings of 10 s with one ventricular beat each, well inside, and its onset in s."
    for seed in range(1000):
        if n == 0: return
        signal, beats, _ = compose_signal(np.random.default_rng(seed), ('PVC',), 10., 500.)
        onset = beats.qrs[beats.kind == KINDS.index('ventricular')]
        if len(onset) != 1 or not 1 < onset[0] < 9: continue
        n -= 1
        yield Record(signal, 500., f'one PVC, seed {seed}', ('PVC',)), onset[0]


def test_the_stretch_with_the_ectopic_beat_matters_most(model):
    k, seen = CLASSES.index('PVC'), 0
    for record, onset in with_one_pvc(8):
        if probability(model, record)[k] < .8: continue  # an explanation of what the model did not say explains nothing
        drop = occlude_time(model, record)[:, k]
        first, last = int(onset/.5), int((onset+.6)/.5)  # the beat with its recovery
        assert first <= drop.argmax() <= last, f'{record.id}: beat at {onset:.2f} s, drops {drop.round(2)}'
        assert drop.max() > 10*np.median(np.abs(drop))
        seen += 1
    assert seen >= 4


def test_gradients_point_to_the_ectopic_beat(model):
    record, onset = next(r for r in with_one_pvc(8) if probability(model, r[0])[CLASSES.index('PVC')] > .8)
    share = np.abs(integrated_gradients(model, record, 'PVC')).sum(0)
    t = np.arange(len(share))/100
    around = (t > onset-.6) & (t < onset+.8)  # the early beat and those beside it, whose intervals make it early
    assert share[around].mean() > 2*share[~around].mean()


@pytest.mark.parametrize('lead', ['I', 'V1', 'V6'])
@pytest.mark.parametrize('seconds', [10, 23.4])
def test_a_hidden_lead_changes_the_probability_by_what_was_foretold(model, lead, seconds):
    record = simulate('RBBB', seconds=seconds, rng=4)
    foretold = occlude_leads(model, record)[LEADS.index(lead)]
    signal = record.signal.copy()
    signal[LEADS.index(lead)] = np.nan
    drop = probability(model, record)-probability(model, replace(record, signal=signal))
    np.testing.assert_allclose(drop, foretold, atol=1e-6)
    assert np.abs(foretold).max() > 0


def test_an_absent_lead_explains_nothing(model):
    record = simulate('AF', rng=2)
    signal = record.signal.copy()
    signal[3] = np.nan
    why = explain_record(model, replace(record, signal=signal), 'AF')
    assert why.lead[3] == 0 and not why.sample[3].any() and np.isfinite(why.sample).all()


@pytest.mark.parametrize('labels,seconds', [('PVC', 10), ('AF', 10), ('RBBB', 6.2), ('STE', 13)])
def test_shares_sum_to_the_difference_of_log_odds(model, labels, seconds):
    record = simulate(labels, seconds=seconds, rng=7)
    x = model.preparation(record.signal, record.fs)
    share = integrated_gradients(model, record, labels)
    assert share.shape == x.shape
    windows = torch.from_numpy(model.windows(x))
    with torch.no_grad(): difference = (model.model(windows)-model.model(0*windows)).mean(0)
    assert abs(share.sum()-float(difference[CLASSES.index(labels)])) < .1  # log odds


@pytest.mark.parametrize('arch', ['lead', 'multilead', 'multilead_shared', 'joint', 'crnn'])
def test_every_network_can_be_explained(arch):
    torch.manual_seed(0)
    small = Predictor(create_model(arch, hidden=8), seconds=5)
    why = explain_record(small, simulate('AF', seconds=7.3, rng=0), 'AF', seconds=1)
    assert why.time.shape == (8,) and why.lead.shape == (12,) and why.sample.shape == (12, 730)
    assert np.abs(why.sample).max() > 0 and np.isfinite(why.sample).all()
    if arch == 'lead':
        by_lead, by_sample = np.flatnonzero(why.lead), np.flatnonzero(np.abs(why.sample).sum(1))
        assert set(by_lead) == set(by_sample) == {LEADS.index('II')}


def test_a_powerset_model_is_explained_by_classes():
    torch.manual_seed(0)
    sets = LabelSets([('Normal',), ('AF',), ('RBBB',), ('AF', 'RBBB')])
    model = Predictor(create_model('crnn', n_classes=4, hidden=8), seconds=5, label_sets=sets)
    record = simulate('AF', seconds=5, rng=0)
    windows = torch.from_numpy(model.windows(model.preparation(record.signal, record.fs)))
    model.model.eval()
    k = CLASSES.index('AF')
    with torch.no_grad(): odds = [_class_log_odds(model.model(w), sets)[0, k] for w in (windows, 0*windows)]
    np.testing.assert_allclose(odds[0].sigmoid(), probability(model, record)[k], atol=1e-5)
    assert abs(integrated_gradients(model, record, 'AF').sum()-float(odds[0]-odds[1])) < .02
    with pytest.raises(ECGError): integrated_gradients(model, record, 'af')


def test_nothing_of_the_model_changes(model):
    record = simulate('AF', rng=1)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    prob = probability(model, record)
    explain_record(model, record, 'AF')
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())
    assert all(p.grad is None for p in model.model.parameters())
    np.testing.assert_array_equal(probability(model, record), prob)
    x = model.preparation(record.signal, record.fs)
    np.testing.assert_array_equal(probability_drop(model, x, [False]), np.zeros((1, 9)))


def test_a_network_without_gradients_says_so(model):
    class Frozen(torch.nn.Module):
        def forward(self, x): return torch.zeros(len(x), 9)
    with pytest.raises(ECGError, match='gives no gradients: load the model folder'):
        integrated_gradients(replace(model, model=Frozen()), simulate('AF', rng=1), 'AF')


def test_without_captum_the_mend_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, 'captum.attr', None)
    with pytest.raises(ECGError, match=r'pip install "ecg_nbdev\[explain\]"'):
        integrated_gradients(model, simulate('AF', rng=1), 'AF')


@pytest.mark.parametrize('seconds,start', [(6.3, 0), (10, 0), (14, 3.2)])
def test_drawn_beside_the_right_leads_and_under_the_right_seconds(model, seconds, start):
    record = simulate('PVC', seconds=seconds, rng=3)
    why = explain_record(model, record, 'PVC')
    paper, beside, below = plot_explanation(record, why, start=start).axes
    assert [round(p.get_width(), 9) for p in beside.patches] == [round(f, 9) for f in why.lead]
    names = [t for t in paper.texts if t.get_text().split(' ')[0] in LEADS]
    bars = [p.get_y()+p.get_height()/2 for p in beside.patches]
    rows = [line.get_ydata() for line in paper.artists + paper.lines if (line.get_gid() or '').startswith('lead-')]
    base = sorted((np.nanmean(row) for row in rows), reverse=True)
    assert len(names) == 12 and bars == sorted(bars, reverse=True) and np.abs(np.array(bars)-base).max() < 6
    left = [p.get_x() for p in below.patches]
    assert np.allclose(np.diff(left[:-1]), 12.5) and below.get_xlim() == paper.get_xlim()
    i = int(np.ceil(start))*2  # the stretch that begins at the first whole second shown, above its tick
    assert abs(left[i]-below.get_xticks()[0]) < 1
    matplotlib.pyplot.close('all')
