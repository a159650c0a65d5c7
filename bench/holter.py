"""A day of ECG: which episodes of a simulated day are found again, and what a day costs in memory and time.

    python bench/holter.py episodes     simulated days with known episodes, 12 leads and 2
    python bench/holter.py rules        the same on other days, for other rules than `find_episodes`'s defaults
    python bench/holter.py cost         24 hours (or --hours) at 500, 100 and 360 Hz, each in a process of its own, on one core

Writes bench/results/holter_episodes.csv, holter_rules.csv and holter.csv. A simulated day is put together from pieces of five
minutes at most, each of another simulated patient: false alarms come and go with the pieces, where those of one real patient
would last all day. An episode counts as found where half of it is covered by answers of its class, an answer as right where
half of it is covered by episodes of its class (ANSI/AAMI EC57, section 4.5, asks for any overlap; this is stricter).
"""
import argparse, itertools, re, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
import wfdb

from ecg_nbdev.bundle import load_pretrained
from ecg_nbdev.core import LEADS, whole_file
from ecg_nbdev.holter import UNREADABLE, find_episodes, predict_stream
from ecg_nbdev.sim.synth import simulate

RESULTS = Path(__file__).resolve().parent/'results'
PIECE = 300 # s at most of one simulated patient
EPISODES = { # what → lengths in s
    'AF': (60, 180, 480, 1200, 2700, 5400), 'PVC': (30, 30, 60, 60, 90, 120, 180, 240), 'PAC': (30, 60, 60, 120, 180, 240),
    'I-AVB': (600, 1800, 3600), 'LBBB': (1200, 2400), 'STD': (300, 600, 900, 1200),
    'noise': (60, 120, 300, 600), 'off': (120, 300, 1200)}
LEADS_OF = {'12': LEADS, '2': ('II', 'V5')}
FS = 250.


# ---- simulated days

def plan_day(rng, hours):
    "Pieces (what, s) of a day: the episodes in random order and sinus rhythm in between; lengths in proportion to 24 hours."
    told = [(what, s) for what, lengths in EPISODES.items() for s in lengths]
    told = [told[i] for i in rng.permutation(len(told))]
    if hours < 24: told = told[:max(1, round(len(told)*hours/24))]
    rest = hours*3600-sum(s for _, s in told)
    gaps = np.maximum(120, rng.dirichlet(np.full(len(told)+1, 2.))*rest).round(-1)
    return [piece for gap, episode in itertools.zip_longest(gaps, told) for piece in (('Normal', gap), episode) if piece]

def piece(rng, what, seconds):
    "(12, n) mV."
    if what == 'off': return rng.normal(0, .003, (12, int(seconds*FS))).astype(np.float32)
    if what == 'noise': return simulate((), seconds, FS, rng, findings='no ECG').signal
    return simulate(what, seconds, FS, rng).signal

def blocks_of(rng, plan, rows):
    "The day, piece by piece."
    for what, seconds in plan:
        while seconds > 0:
            yield piece(rng, what, min(PIECE, seconds))[rows]
            seconds -= PIECE

def truth_of(plan):
    "The episodes of a day, as `find_episodes` would tell them."
    ends = np.cumsum([s for _, s in plan])
    table = pd.DataFrame({'episode': [what for what, _ in plan], 'end': ends, 'seconds': [s for _, s in plan]})
    table['episode'] = table.episode.replace({'noise': UNREADABLE, 'off': UNREADABLE})
    return table.assign(start=table.end-table.seconds)

def answered_day(seed, leads, hours, predictor):
    "Windows of a day, and its true episodes."
    rng, rows = np.random.default_rng(seed), [LEADS.index(lead) for lead in LEADS_OF[leads]]
    plan = plan_day(rng, hours)
    windows = pd.DataFrame(predict_stream(blocks_of(rng, plan, rows), predictor, FS, LEADS_OF[leads]))
    return windows, truth_of(plan)


# ---- what is found again

def covered(a, b):
    "Seconds of each span of `a` that spans of `b` cover."
    starts, ends = np.maximum.outer(a.start.to_numpy(), b.start.to_numpy()), np.minimum.outer(a.end.to_numpy(), b.end.to_numpy())
    return np.maximum(ends-starts, 0).sum(axis=1)

def score(truth, found, name):
    "How well the episodes of one class are found, a row."
    t, f = truth[truth.episode == name], found[found.episode == name]
    hit, right = covered(t, f), covered(f, t)
    edges = [min(abs(f.start-s))+min(abs(f.end-e)) for s, e, h, n in zip(t.start, t.end, hit, t.seconds) if h >= n/2]
    return {'class': name, 'episodes': len(t), 'found': len(f), 'sensitivity': (hit >= t.seconds/2).mean() if len(t) else np.nan,
            'PPV': (right >= f.seconds/2).mean() if len(f) else np.nan, 'minutes': t.seconds.sum()/60, 'minutes found': f.seconds.sum()/60,
            'duration sensitivity': hit.sum()/t.seconds.sum() if len(t) else np.nan,
            'duration PPV': right.sum()/f.seconds.sum() if len(f) else np.nan,
            'edges off, s, median': np.median(edges)/2 if edges else np.nan}

def joined_days(days):
    "Windows or episodes of several days, one after the other."
    return pd.concat([d.assign(start=d.start+i*1e6, end=d.end+i*1e6) for i, d in enumerate(days)], ignore_index=True)

def episodes(hours, seeds=(0, 1)):
    predictor, rows = load_pretrained(), []
    for leads in LEADS_OF:
        days = [answered_day(seed, leads, hours, predictor) for seed in seeds]
        found = joined_days([find_episodes(w, predictor.thresholds) for w, _ in days])
        truth = joined_days([t for _, t in days])
        rows += [{'leads': leads, 'days': len(seeds), **score(truth, found, name)} for name in (*predictor.classes, UNREADABLE)]
    write(pd.DataFrame(rows), 'holter_episodes')

def rules(hours, seeds=(100, 101)):
    "Mean F1 of episodes and of time, over classes and numbers of leads, for other rules."
    predictor, rows = load_pretrained(), []
    days = [answered_day(seed, leads, hours, predictor) for leads in LEADS_OF for seed in seeds]
    truth = joined_days([t for _, t in days])
    names = [n for n in EPISODES if n in predictor.classes]
    options = {'stay': (0, .5, 1, 2), 'bridge': (10, 30, 60), 'least': (10, 30, 60)}
    for values in itertools.product(*options.values()):
        rule = dict(zip(options, values))
        found = joined_days([find_episodes(w, predictor.thresholds, **rule) for w, _ in days])
        s = pd.DataFrame([score(truth, found, name) for name in names]).fillna(0)
        f1 = {what: (2*s[a]*s[b]/np.maximum(s[a]+s[b], 1e-9)) for what, a, b in (
            ('episodes', 'sensitivity', 'PPV'), ('time', 'duration sensitivity', 'duration PPV'))}
        rows.append({**rule, **{f'F1 of {k}': v.mean() for k, v in f1.items()},
                     'F1 of AF episodes': f1['episodes'][names.index('AF')]})
    write(pd.DataFrame(rows), 'holter_rules')


# ---- what a day costs

CASES = {'12 leads, 500 Hz': (500, LEADS, '16'), '12 leads, 100 Hz': (100, LEADS, '16'), '2 leads, 360 Hz': (360, ('MLII', 'V5'), '212')}

def write_day(folder, fs, leads, form, hours):
    "A record of `hours`, one simulated hour over and over."
    rows = [LEADS.index('II' if lead == 'MLII' else lead) for lead in leads]
    rng = np.random.default_rng(0)
    hour = np.concatenate([simulate(('Normal', 'AF')[i == 2], PIECE, fs, rng).signal[rows] for i in range(12)], axis=1)
    hour = hour[:, :hour.shape[1]//2*2]
    k = len(leads)
    wfdb.wrsamp('day', fs, ['mV']*k, list(leads), p_signal=np.clip(hour.T.astype(float), -5, 5), fmt=[form]*k,
                adc_gain=[200]*k, baseline=[0]*k, write_dir=str(folder))
    file, header = folder/'day.dat', folder/'day.hea'
    once = file.read_bytes()
    with file.open('wb') as f:
        for _ in range(hours): f.write(once)
    header.write_text(header.read_text().replace(f' {hour.shape[1]}\n', f' {hour.shape[1]*hours}\n', 1))
    return header

def measured(path):
    "In a process of its own: answer a file; says memory in MB before and at its peak, and CPU seconds."
    import torch
    torch.set_num_threads(1)
    predictor = load_pretrained()
    list(predict_stream([np.random.default_rng(0).normal(0, 1, (12, 40*500))], predictor, 500, LEADS)) # what is imported late
    Path('/proc/self/clear_refs').write_text('5') # the peak is counted from here on
    before, begun = memory('VmRSS'), time.process_time()
    n = sum(1 for _ in predict_stream(path, predictor))
    print(n, before, memory('VmHWM'), time.process_time()-begun)

def memory(what):
    "MB of this process, now (VmRSS) or at its peak (VmHWM); `getrusage` would count what its parent held, too."
    return int(re.search(rf'{what}:\s+(\d+)', Path('/proc/self/status').read_text())[1])/1024

def cost(hours):
    rows = []
    for name, (fs, leads, form) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write_day(Path(folder), fs, leads, form, hours)
            size = path.with_suffix('.dat').stat().st_size/1e6
            command = [sys.executable, __file__, 'measured', '--path', str(path)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        n, before, peak, seconds = map(float, said.split())
        rows.append({'case': name, 'hours': hours, 'file, MB': size, 'windows': int(n), 'loaded, MB': before, 'peak, MB': peak,
                     'above loading, MB': peak-before, 'CPU seconds': seconds, 'hours of ECG a CPU second': hours/seconds})
        print(rows[-1], flush=True)
    write(pd.DataFrame(rows), 'holter')

def write(table, name):
    with whole_file(RESULTS/f'{name}.csv') as f: table.round(3).to_csv(f, index=False)
    print(table.round(3).to_string())

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('episodes', 'rules', 'cost', 'measured'))
    parser.add_argument('--hours', type=int, default=24)
    parser.add_argument('--path', help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == 'measured': measured(given.path)
    else: {'episodes': episodes, 'rules': rules, 'cost': cost}[given.what](given.hours)
