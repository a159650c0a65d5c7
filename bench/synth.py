"Records per second that the simulator makes, in processor time of one core: `python bench/synth.py`."
import time

from ecg_nbdev.sim.synth import simulate_cohort


def rate(fs, seconds, n=200):
    "Records per second of processor time; the median of three runs."
    runs = []
    for seed in range(3):
        start = time.process_time()
        for _ in simulate_cohort(n, seed=seed, fs=fs, seconds=seconds): pass
        runs.append(n/(time.process_time()-start))
    return sorted(runs)[1]


if __name__ == '__main__':
    print('fs, Hz  seconds  records/s of one core')
    for fs, seconds in ((500, 15), (500, 10), (100, 15), (100, 10)):
        speed = rate(fs, seconds)
        print(f'{fs:6d}  {seconds:7d}  {speed:8.0f}')
