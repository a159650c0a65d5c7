"""How long an ECG figure takes, and how large its files are: `python bench/plots.py`.

Drawing plus writing a PNG of 1000 pixels, median of several repeats after a first one that imports matplotlib; the
recordings are simulated. `ms` is time of the clock, `cpu_ms` time of the processor: on a machine that is busy with
other work the second is the one to compare."""
import io, json, statistics, sys, time

import matplotlib
matplotlib.use('agg')
from matplotlib import pyplot as plt

from ecg_nbdev.plots import plot_batch, plot_ecg
from ecg_nbdev.sim.synth import simulate

REPEATS = 15

def figure(make, format='png', **kw):
    "Seconds of the clock, of the processor, and bytes of one figure."
    clock, cpu, file = time.perf_counter(), time.process_time(), io.BytesIO()
    drawn = make().get_figure()
    drawn.savefig(file, format=format, dpi=1000/drawn.get_figwidth(), **kw)
    plt.close(drawn)
    return time.perf_counter()-clock, time.process_time()-cpu, file.tell()

def cases():
    "What is drawn: name -> function that draws it."
    ten, minute = (simulate(('Normal',), seconds=s, fs=500, rng=0) for s in (10, 60))
    windows = [ten.signal[:, i*500:i*500+1250] for i in range(9)]
    return {
        '3x4+1, 10 s': lambda: plot_ecg(ten), '12x1, 10 s': lambda: plot_ecg(ten, layout='12x1'),
        '3x4+1, 60 s folded': lambda: plot_ecg(minute),
        '3x4+1 with weights, 10 s': lambda: plot_ecg(ten, weight=ten.signal),
        'batch of 9 windows of 2.5 s': lambda: plot_batch(windows, fs=500)}

def measure(make):
    "Median times (ms) and sizes (kB) of a figure."
    figure(make)
    runs = [figure(make) for _ in range(REPEATS)]
    ms, cpu_ms = (round(1000*statistics.median(run[i] for run in runs), 1) for i in (0, 1))
    sizes = {f'{kind}_kB': figure(make, kind)[-1]//1000 for kind in ('svg', 'pdf')}
    return dict(ms=ms, cpu_ms=cpu_ms, png_kB=runs[0][-1]//1000, **sizes)

def main():
    rows = {}
    for name, make in cases().items():
        rows[name] = row = measure(make)
        sizes = '   '.join(f'{kind} {row[f"{kind}_kB"]:5} kB' for kind in ('png', 'svg', 'pdf'))
        print(f"{name:30} {row['ms']:7.1f} ms   {row['cpu_ms']:7.1f} cpu ms   {sizes}", file=sys.stderr)
    print(json.dumps(rows))

if __name__ == '__main__': main()
