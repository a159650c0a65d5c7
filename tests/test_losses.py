"""Losses against reference formulas in numpy, and what they do with extreme logits."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from ecg_nbdev.losses import LOSSES, BCE, Asymmetric, DeepSupervision, Focal, PowersetCE, create_loss, positive_weight

rng = np.random.default_rng(0)
LOGITS = rng.normal(scale=3, size=(40, 9))
TARGET = (rng.random((40, 9)) < .2).astype(float)
SETS = rng.integers(-1, 9, 40)

def value(loss, logits=LOGITS, target=TARGET): return loss(torch.from_numpy(logits), torch.from_numpy(target)).item()

def sigmoid(x): return 1/(1+np.exp(-x))

def reference_bce(x, y, weight=1.): return -(weight*y*np.log(sigmoid(x))+(1-y)*np.log(sigmoid(-x)))

def reference_focal(x, y, alpha, gamma):
    "torchvision.ops.sigmoid_focal_loss, line by line."
    p, ce = sigmoid(x), reference_bce(x, y)
    p_t = p*y+(1-p)*(1-y)
    return (alpha*y+(1-alpha)*(1-y))*ce*(1-p_t)**gamma

def reference_asymmetric(x, y, gamma_neg, gamma_pos, clip, eps=1e-8):
    "AsymmetricLoss as the authors of the paper wrote it (Alibaba-MIIL/ASL), line by line."
    pos = sigmoid(x)
    neg = np.minimum(1-pos+clip, 1) if clip else 1-pos
    loss = y*np.log(np.maximum(pos, eps))+(1-y)*np.log(np.maximum(neg, eps))
    pt = pos*y+neg*(1-y)
    return -loss*(1-pt)**(gamma_pos*y+gamma_neg*(1-y))

def test_bce(): assert value(BCE()) == pytest.approx(reference_bce(LOGITS, TARGET).mean(), abs=1e-7)

def test_weighted_bce():
    weight = positive_weight(TARGET).numpy()
    positive = TARGET.sum(0)
    assert weight == pytest.approx(np.minimum(np.sqrt((40-positive)/positive), 20))
    expected = reference_bce(LOGITS, TARGET, weight).mean()
    assert value(create_loss('weighted_bce', targets=TARGET)) == pytest.approx(expected, abs=1e-6)

@pytest.mark.parametrize('smoothing', [.05, .2])
def test_smoothing(smoothing):
    soft = TARGET*(1-smoothing)+smoothing/2
    assert value(BCE(smoothing=smoothing)) == pytest.approx(reference_bce(LOGITS, soft).mean(), abs=1e-7)

@pytest.mark.parametrize('alpha, gamma', [(.25, 2.), (.5, 1.), (.9, 5.)])
def test_focal(alpha, gamma):
    assert value(Focal(gamma, alpha)) == pytest.approx(reference_focal(LOGITS, TARGET, alpha, gamma).mean(), abs=1e-7)

@pytest.mark.parametrize('negative, positive, margin', [(4., 1., .05), (4., 0., .2), (2., 2., 0.)])
def test_asymmetric(negative, positive, margin):
    expected = reference_asymmetric(LOGITS, TARGET, negative, positive, margin).mean()
    assert value(Asymmetric(negative, positive, margin)) == pytest.approx(expected, abs=1e-6)

@pytest.mark.parametrize('smoothing', [0., .1])
def test_powerset(smoothing):
    log_p = LOGITS-np.log(np.exp(LOGITS).sum(1, keepdims=True))
    hard = (1-smoothing)*np.eye(9)[SETS]+smoothing/9
    assert value(PowersetCE(smoothing), target=SETS) == pytest.approx(-(hard*log_p).sum(1)[SETS >= 0].mean(), abs=1e-7)

def test_deep_supervision_means_over_present_leads():
    leads = rng.normal(size=(40, 12, 9))
    leads[:10, 3] = leads[5, :] = np.nan
    present = ~np.isnan(leads[..., 0])
    per_lead = reference_bce(leads[present], np.repeat(TARGET[:, None], 12, 1)[present])
    expected = reference_bce(LOGITS, TARGET).mean()+.5*per_lead.mean()
    loss = DeepSupervision(BCE(), share=.5)
    assert value(lambda l, t: loss((l, torch.from_numpy(leads)), t)) == pytest.approx(expected, abs=1e-7)

def test_an_absent_lead_gets_no_gradient():
    leads = torch.zeros(2, 12, 9, requires_grad=True)
    absent = torch.zeros(2, 12, 1, dtype=torch.bool); absent[0, 5] = True
    create_loss()((torch.zeros(2, 9), leads.masked_fill(absent, float('nan'))), torch.ones(2, 9)).backward()
    assert torch.isfinite(leads.grad).all() and not leads.grad[0, 5].any() and leads.grad[0, 4].all()

@pytest.mark.parametrize('name', LOSSES)
@settings(max_examples=30, deadline=None)
@given(scale=st.floats(0, 1e4), seed=st.integers(0, 99))
def test_extreme_logits_stay_finite(name, scale, seed):
    draw = torch.Generator().manual_seed(seed)
    logits = (torch.randn(8, 9, generator=draw)*scale).requires_grad_()
    if name == 'powerset': target = torch.randint(-1, 9, (8,), generator=draw)
    else: target = (torch.rand(8, 9, generator=draw) < .3).float()
    loss = create_loss(name, targets=TARGET)(logits, target)
    loss.backward()
    assert loss >= 0 and torch.isfinite(loss) and torch.isfinite(logits.grad).all()

def test_names():
    with pytest.raises(ValueError, match='choose one of'): create_loss('mse')
    with pytest.raises(ValueError, match='give targets or weight'): create_loss('weighted_bce')
