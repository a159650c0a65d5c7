"""Features of rhythm and median beat that a reader of ECGs would name: the input of the baseline that knows no network.

No library in the environment measures them in twelve leads (neurokit2 is not among the requirements), so they are
made here from scipy's filters and peaks. A feature that can't be measured is NaN.
"""
import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt

from ecg_nbdev.core import LEADS

FS = 250  # Hz, of the signals
BEFORE, AFTER = 80, 130  # samples of a beat before and behind its R peak: 320 and 520 ms
BANDS = {'QRS': butter(2, [8, 25], 'band', fs=FS, output='sos'), 'steady': butter(2, .5, 'high', fs=FS, output='sos'),
         'waves': butter(2, [4, 9], 'band', fs=FS, output='sos')}
SHOWN = ('I', 'II', 'V1', 'V2', 'V5', 'V6')  # leads whose amplitudes are features


def filtered(x, band): return sosfiltfilt(BANDS[band], x)

def r_peaks(x):
    "Samples of the R peaks of (12, n): where the slope of all leads together is largest."
    slope = np.sqrt((np.gradient(filtered(x, 'QRS'), axis=1)**2).sum(0))
    slope = np.convolve(slope, np.ones(20)/20, 'same')
    return find_peaks(slope, height=.35*np.percentile(slope, 98), distance=60)[0]

def rhythm_features(rr):
    "Features of the intervals between beats, s (n,)."
    near = np.array([np.median(rr[max(0, i-4):i+5]) for i in range(len(rr))])
    step = np.diff(rr)
    return {'RR': np.median(rr), 'variation': rr.std()/rr.mean(), 'pNN50': (np.abs(step) > .05).mean(),
            'irregularity': np.sqrt((step**2).mean())/rr.mean(), 'early beats': (rr < .85*near).mean(),
            'late beats': (rr > 1.15*near).mean(), 'shortest': (rr/near).min(), 'longest': (rr/near).max()}

def shape_features(beats, median, rr):
    "How far single beats (n, 12, samples) are from the median beat; `rr` is the interval before each, s."
    part = slice(BEFORE-20, BEFORE+30)
    a, b = beats[..., part].reshape(len(beats), -1), median[:, part].ravel()
    alike = (a@b)/(np.linalg.norm(a, axis=1)*np.linalg.norm(b)+1e-9)
    early, odd = rr < .88*np.median(rr), alike < .8
    residual = np.sqrt(((beats-median)**2).mean((1, 2)))
    return {'residual': np.median(residual), 'largest residual': residual.max(), 'least alike': alike.min(),
            'odd beats': odd.mean(), 'early odd beats': (early & odd).mean(),
            'early usual beats': (early & ~odd).mean()}

def borders(median):
    "First and last sample of QRS of a median beat (12, samples), by the slope of all leads together."
    slope = np.sqrt((np.gradient(median, axis=1)**2).sum(0))
    level = .12*slope[BEFORE-25:BEFORE+30].max()
    onset = next((i for i in range(BEFORE, BEFORE-30, -1) if (slope[i-2:i] < level).all()), BEFORE-30)
    end = next((i for i in range(BEFORE+2, BEFORE+45) if (slope[i:i+3] < level).all()), BEFORE+45)
    return onset, end

def atrial_features(x, beats, median, onset):
    "P waves: their height, distance to QRS, whether single beats have them; fibrillatory waves in V1."
    window = slice(8, max(onset-4, 20))
    p = median[:, window]-median[:, onset-4:onset-1].mean(1, keepdims=True)
    peak = np.abs(p[1]).argmax()
    centred = beats[:, 1, window]-beats[:, 1, window].mean(1, keepdims=True)
    mean = centred.mean(0)
    same = (centred@mean)/(np.linalg.norm(centred, axis=1)*np.linalg.norm(mean)+1e-9)
    return {'P in II': p[1, peak], 'P in V1': np.ptp(p[6]), 'PR': (onset-8-peak)/FS, 'P in all beats': np.median(same),
            'waves in V1': filtered(x, 'waves')[6].std()/(np.ptp(median[6])+.05)}

def beat_features(median, onset, end):
    "Intervals, axis and amplitudes of a median beat, mV from the level before QRS."
    beat = median-median[:, onset-4:onset].mean(1, keepdims=True)
    qrs, t = beat[:, onset:end+1], beat[:, min(end+25, BEFORE+80):]
    top = np.abs(t).argmax(1)
    net = qrs.sum(1)
    found = {'QRS': (end-onset)/FS, 'QT peak': (BEFORE+80-onset+np.median(top))/FS,
             'axis cos': net[0]/np.hypot(net[0], net[5]+1e-9), 'axis sin': net[5]/np.hypot(net[0], net[5]+1e-9),
             'late QRS in V1': qrs[6, -max(4, len(qrs[6])//3):].mean(), 'late QRS in V6': qrs[11, -6:].mean(),
             'middle QRS in V6': qrs[11, len(qrs[11])//3:2*len(qrs[11])//3+1].mean()}
    found |= {f'ST {lead}': beat[i, min(end+15, beat.shape[1]-1)] for i, lead in enumerate(LEADS)}
    for lead in SHOWN:
        i = LEADS.index(lead)
        found |= {f'R {lead}': qrs[i].max(), f'S {lead}': qrs[i].min(), f'T {lead}': t[i, top[i]]}
    return found

def measure(x):
    "Features of a recording (12, n) mV at 250 Hz by name; none where fewer than four beats are found."
    x = np.nan_to_num(np.asarray(x, float))
    if x.shape[1] < 4*FS: return {}
    peaks = r_peaks(x)
    inside = [i for i, p in enumerate(peaks) if p >= BEFORE and p < x.shape[1]-AFTER and i]
    if len(inside) < 3: return {}
    steady, rr = filtered(x, 'steady'), np.diff(peaks)/FS
    beats = np.stack([steady[:, peaks[i]-BEFORE:peaks[i]+AFTER] for i in inside])
    median = np.median(beats, 0)
    onset, end = borders(median)
    return {**rhythm_features(rr), **shape_features(beats, median, rr[np.array(inside)-1]),
            **atrial_features(steady, beats, median, onset), **beat_features(median, onset, end)}
