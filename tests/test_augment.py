"""Augmentation: what is NaN stays NaN, what is drawn repeats, and each change is the change it says it is."""
import subprocess, sys
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from ecg_nbdev.augment import AUGMENTS, Augment, crop, drop_leads, mixup, noise, scale, wander, warp_time, wrong_gain

def batch(windows=5, n=300, seed=0):
    "Windows of noise, of which some are short and some lack leads."
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(windows, 12, n, generator=g)
    x[1, :, n//2:] = float('nan')
    x[2, 3:7] = float('nan')
    return x

def seeded(seed=0): return torch.Generator().manual_seed(seed)

def same(a, b): return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(0.), b.nan_to_num(0.))

RECIPE = {'crop': {'size': 200}, 'warp_time': {}, 'scale': {}, 'wrong_gain': {'share': .3}, 'noise': {'share': .5}, 'wander': {'fs': 100},
          'drop_leads': {'p': .3}, 'mixup': {}}

def test_import_is_light():
    code = "import sys, ecg_nbdev.augment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

@pytest.mark.parametrize('change', [scale, wrong_gain, noise, lambda x, generator: wander(x, 100, generator=generator)])
def test_holes_stay(change):
    x = batch()
    before = x.clone()
    changed = change(x, generator=seeded())
    assert torch.equal(changed.isnan(), x.isnan()) and not same(changed, x) and same(x, before)

@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 350), length=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_crop_is_a_stretch_of_the_window(size, length, seed):
    x = torch.arange(300.).expand(3, 12, 300).clone()
    x[0, :, length:] = float('nan')
    y = crop(x, size, seeded(seed))
    assert y.shape[-1] == min(size, 300)
    assert (y.diff(dim=-1)[1:] == 1).all() and (~y[0, 0].isnan()).sum() == min(length, size, 300)

def test_warping_is_interpolation():
    x = batch()[:1]
    warped = warp_time(x, .2, seeded(3))
    speed = 1+seeded_uniform(3, -.2, .2)
    time = np.arange(300)*speed
    for lead, row in zip(x[0].numpy(), warped[0].numpy()):
        assert np.allclose(row[time <= 299], np.interp(time[time <= 299], np.arange(300), lead), atol=1e-3)
        assert np.isnan(row[time > 299]).all()

def seeded_uniform(seed, low, high): return torch.empty(1, 1).uniform_(low, high, generator=seeded(seed)).item()

def test_warping_keeps_absent_leads_absent():
    assert warp_time(batch(), .1, seeded())[2, 3:7].isnan().all()

def test_wander_is_slow():
    flat = torch.zeros(4, 12, 6000)
    wave = wander(flat, fs=100, mv=.5, generator=seeded())
    power = torch.fft.rfft(wave*torch.hann_window(6000)).abs().square().sum((0, 1))
    assert power[torch.fft.rfftfreq(6000, 1/100) < .6].sum() > .999*power.sum()
    assert wave.abs().max() <= 3*.5

def test_noise_level():
    level = noise(torch.zeros(200, 12, 500), mv=.1, generator=seeded()).std((1, 2))
    assert .08 < level.max() < .11 and level.min() < .01

@settings(max_examples=30, deadline=None)
@given(p=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_lead_is_left(p, seed):
    x = batch()
    dropped = drop_leads(x, p, seeded(seed))
    assert (~dropped.isnan()).any(-1).any(1).all()
    assert same(torch.where(dropped.isnan(), float('nan'), x), dropped)

def test_mixup_shares():
    x, y = torch.arange(6.)[:, None, None].expand(6, 12, 10).clone(), torch.eye(6)
    mixed, target = mixup(x, y, 1., seeded())
    # signals and targets in the same proportion
    assert torch.allclose(mixed[:, 0, 0], target@torch.arange(6.), atol=1e-5)
    assert torch.allclose(target.sum(1), torch.ones(6)) and (target.diagonal() >= .5-1e-6).all()

def test_mixup_fills_no_holes():
    x = batch()
    assert torch.equal(mixup(x, torch.eye(5), 1., seeded())[0].isnan(), x.isnan())

def test_mixup_of_tiny_alpha_is_finite():
    assert mixup(torch.ones(500, 12, 4), torch.ones(500, 9), 1e-4, seeded())[0].isfinite().all()

def test_a_seed_repeats_and_leaves_the_global_one_alone():
    x, y, state = batch(), torch.eye(5), torch.get_rng_state()
    a, b, c = Augment(RECIPE, 3), Augment(RECIPE, 3), Augment(RECIPE, 4)
    for _ in range(2):
        first, second, third = a(x, y), b(x, y), c(x, y)
        assert same(first[0], second[0]) and torch.equal(first[1], second[1]) and not same(first[0], third[0])
    assert torch.equal(torch.get_rng_state(), state)

def test_share_of_windows():
    x = torch.ones(400, 12, 5)
    changed = (Augment({'noise': {'share': .25}})(x) != x).any(-1).any(-1)
    assert 70 < changed.sum() < 130

@pytest.mark.parametrize('spec, message', [
    ({'spin': {}}, "no augmentation 'spin'"),
    ({'noise': {'db': 3}}, "no option 'db'"),
    ({'crop': {'share': .5}}, "no option 'share'")])
def test_bad_recipes(spec, message):
    with pytest.raises(ValueError, match=message): Augment(spec)

def test_every_name_is_used(): assert set(RECIPE) == set(AUGMENTS)
