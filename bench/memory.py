"""Memory and time beyond training as a data set grows: `python bench/memory.py`, ten minutes; table in bench/results.

Stores of 1,000 to 100,000 recordings of ten seconds at 100 Hz (300 simulated ones, as often as it takes, see
`growth.py`) go through everything that follows a training: opening and drawing batches, folds, predictions (of 5,000 at
most), thresholds on a sixth, evaluation, bootstrap intervals, report, slider. A process of its own for each size; of
each step its processor seconds, and the peak of the process's own memory beyond what it held before anything was read
(libraries and model); probabilities are made up. At last the report is opened in Chromium. Exponents are slopes of log
seconds, and of log megabytes, over log recordings, from 5,000 on.
"""
import argparse, json, shutil, subprocess, sys, tempfile, threading, time, warnings
from pathlib import Path

import numpy as np
import pandas as pd

from growth import OUT, memory, write_store

SIZES, PREDICTED, N_BOOT = (1000, 5000, 20_000, 100_000), 5000, 100


# ---- in a process of its own

class Watch:
    "Processor seconds and peak of own memory, step by step."
    def __init__(self):
        self.rows, self.peak, self.base = [], 0, memory()['RssAnon']
        threading.Thread(target=self.look, daemon=True).start()

    def look(self):
        while True:
            self.peak = max(self.peak, memory()['RssAnon'])
            time.sleep(.02)

    def __call__(self, name, step):
        self.peak, start = memory()['RssAnon'], time.process_time()
        found = step()
        self.peak = max(self.peak, memory()['RssAnon'])
        self.rows.append({'step': name, 'cpu_s': time.process_time()-start, 'own_mb': self.peak-self.base})
        return found

def opened(folder):
    "A store, after fifty batches."
    from ecg_nbdev.store import Store
    store, rng = Store(folder), np.random.default_rng(0)
    for _ in range(50): store.gather(rng.integers(0, len(store), 64), np.zeros(64, int), 1000)
    return store

def made_up(index):
    "Predictions for the recordings of an index: five sixths of them test, the others valid."
    from ecg_nbdev.core import CLASSES
    from ecg_nbdev.labels import label_states
    from ecg_nbdev.predictions import Predictions
    truth, rng = label_states(index, CLASSES)[0], np.random.default_rng(0)
    prob = 1/(1+np.exp(-(rng.normal(-3, 1.5, truth.shape)+3.5*truth)))
    role = np.where(np.arange(len(index)) % 6 == 0, 'valid', 'test')
    return Predictions(index.id, prob, truth, role, key=index.mark)

def one_size(folder):
    "All steps on the store in a folder; their rows as a line of JSON."
    from ecg_nbdev.answers import find_model
    from ecg_nbdev.folds import make_folds
    from ecg_nbdev.evaluation import evaluate
    from ecg_nbdev.report import write_report
    from ecg_nbdev.thresholds import apply_thresholds, fit_thresholds
    from ecg_nbdev.widget import ThresholdSlider
    warnings.simplefilter('ignore')
    model = find_model(light=True)
    watch = Watch()
    store = watch('open and draw 50 batches', lambda: opened(folder))
    watch('make ten folds', lambda: make_folds(store.index))
    if len(store) <= PREDICTED:
        store.meta['preparation'] = model.preparation.to_dict()
        watch('predict', lambda: model.predictions(store))
    preds = watch('make up probabilities', lambda: made_up(store.index))
    at = watch('choose thresholds', lambda: fit_thresholds(preds))
    scored = watch('evaluate', lambda: evaluate(apply_thresholds(preds, at), at, n_boot=N_BOOT))
    watch('bootstrap intervals', lambda: (scored.intervals, scored.class_intervals))
    page = watch('write the report', lambda: write_report(scored, Path(folder)/'report.html'))
    watch('the slider', lambda: ThresholdSlider(preds, at)._repr_mimebundle_())
    print(json.dumps(watch.rows+[{'step': 'size of the report', 'page_mb': page.stat().st_size/1e6}]))

def opening_seconds(page, n=3):
    "The least seconds, by the clock, in which Chromium has loaded a page and computed its numbers."
    from playwright.sync_api import sync_playwright
    times = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu'])
        for _ in range(n):
            tab, start = browser.new_page(), time.perf_counter()
            tab.goto(Path(page).as_uri())
            times.append(time.perf_counter()-start)
            tab.close()
        browser.close()
    return min(times)


# ---- in the process that measures

def measured(folder, n):
    "Rows of one size."
    write_store(folder, n, distinct=300)
    command = [sys.executable, '-W', 'ignore', __file__, '--size', str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr)
    rows = json.loads(done.stdout.splitlines()[-1])
    rows.append({'step': 'open the report in Chromium', 'clock_s': opening_seconds(folder/'report.html')})
    return [{'records': n, **row} for row in rows]

def exponent(part, column):
    "Slope of log values over log recordings."
    part = part[part.records >= 5000].dropna(subset=[column])
    if len(part) < 2: return np.nan
    return np.polyfit(np.log(part.records), np.log(part[column].clip(lower=.01)), 1)[0]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', help=argparse.SUPPRESS)
    parser.add_argument('--sizes', type=int, nargs='*', default=SIZES, help='recordings')
    args = parser.parse_args()
    if args.size: return one_size(args.size)
    rows = []
    with tempfile.TemporaryDirectory(prefix='memory-') as folder:
        for n in args.sizes:
            rows += measured(Path(folder)/str(n), n)
            shutil.rmtree(Path(folder)/str(n))
            print(pd.DataFrame([row for row in rows if row['records'] == n]).round(3).to_string(), flush=True)
    table = pd.DataFrame(rows)
    for name, column in (('exponent_s', 'cpu_s'), ('exponent_mb', 'own_mb')):
        table[name] = table.step.map({step: exponent(part, column) for step, part in table.groupby('step')})
    table.to_csv(OUT/'memory.csv', index=False, float_format='%.4g')

if __name__ == '__main__': main()
