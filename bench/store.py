"""Ways to keep a cohort on disk, side by side: `python bench/store.py`, ten minutes; bench/results/store*.csv.

    python bench/store.py --peers-python PEERS/bin/python    also measures tsai, torch_ecg and webdataset

The same work for each: batches of 64 random ten-second windows, (64, 12, 1000) float32 in mV, out of 4,000 recordings
at 100 Hz as long as CPSC2018's (500 simulated ones, eight times over), NaN behind those that are shorter. The
yardstick is a plain copy of as many windows out of one float32 array in memory. Each way runs in a process of its
own, its repetitions between those of the yardstick, and the least processor time of each counts; then in two
processes at once; then cold, by the clock, after the system has let go of its files. Libraries that cut no random
windows are given windows that are cut already (tsai, torch_ecg).
`store_parts.csv` tells where the time of `Store.gather` goes, `store_opening.csv` how long opening takes.
"""
import argparse, io, json, os, subprocess, sys, tarfile, tempfile, time
from pathlib import Path

import numpy as np

OUT, FS, SIZE, BATCH, DISTINCT, TIMES = Path(__file__).resolve().parent/'results', 100, 1000, 64, 500, 8
SCALE = np.float32(.001)

def about(version):
    "What a store says of itself."
    from ecg_nbdev.signal import Preparation
    return {'version': version, 'fs': float(FS), 'preparation': Preparation(fs=FS).to_dict(), 'fingerprint': ''}


# ---- the recordings, as every way wants them

def make_recordings():
    "(12, n) int16 in microvolts."
    from ecg_nbdev.sim.synth import simulate_cohort
    from ecg_nbdev.units import to_units
    for record in simulate_cohort(DISTINCT, 7, FS, balance=.5): yield to_units(record.signal)[0]

def write_all(folder):
    "Each way's files in a folder of its name."
    made = list(make_recordings())
    recordings = [made[i % DISTINCT] for i in range(DISTINCT*TIMES)]
    np.save(folder/'lengths.npy', [x.shape[1] for x in recordings])
    for write in (write_windows, write_store, write_by_sample, write_zarr, write_arrow, write_tar, write_wfdb):
        write(folder, recordings)

def write_windows(folder, recordings):
    "Cut windows as one float32 array: one behind the other in each recording, its rest left out."
    (folder/'windows').mkdir()
    starts = [(x, i) for x in recordings for i in range(0, max(x.shape[1]-SIZE, 0)+1, SIZE)]
    np.save(folder/'windows'/'x.npy', in_millivolts((x[:, i:i+SIZE] for x, i in starts), len(starts)))

def write_store(folder, recordings):
    "A store of this package."
    import pandas as pd
    from ecg_nbdev.store import STORE_VERSION, shard_file
    (folder/'store').mkdir()
    n = np.array([x.shape[1] for x in recordings])
    with open(shard_file(folder/'store', 0), 'wb') as f:
        for x in recordings: f.write(x)
    names = [f'S{i:05d}' for i in range(len(n))]
    index = {'id': names, 'patient': names, 'labels': '', 'shard': 0, 'offset': n.cumsum()-n, 'n_samples': n,
             'gaps': False, 'clipped': 0, 'crc': 0, 'mark': names}
    pd.DataFrame(index).to_parquet(folder/'store'/'index.parquet')
    (folder/'store'/'store.json').write_text(json.dumps(about(STORE_VERSION)))

def write_by_sample(folder, recordings):
    "The format before this one: twelve leads of a sample side by side."
    (folder/'by_sample').mkdir()
    with open(folder/'by_sample'/'signal.i16', 'wb') as f:
        for x in recordings: f.write(np.ascontiguousarray(x.T))

def write_zarr(folder, recordings):
    "Two arrays (12, all samples), chunks as long as a window, a thousand in a shard: packed, and as they are."
    import zarr
    whole = np.concatenate(recordings, axis=1)
    for name, how in (('zarr', {}), ('zarr_raw', {'compressors': None})):
        cut = {'chunks': (12, SIZE), 'shards': (12, 1000*SIZE)}
        held = zarr.create_array(folder/name, shape=whole.shape, dtype='int16', **cut, **how)
        held[:] = whole

def write_arrow(folder, recordings):
    "A row per recording with its signal as bytes: Arrow IPC, and Parquet in groups of eight rows."
    import pyarrow as pa, pyarrow.parquet as pq
    table = pa.table({'signal': pa.array([x.tobytes() for x in recordings], pa.large_binary())})
    for name in ('arrow', 'parquet'): (folder/name).mkdir()
    with pa.OSFile(str(folder/'arrow'/'x.arrow'), 'wb') as f, pa.ipc.new_file(f, table.schema) as out: out.write(table)
    pq.write_table(table, folder/'parquet'/'x.parquet', row_group_size=8, use_dictionary=False)

def write_tar(folder, recordings):
    "Tar files of 250 recordings, as webdataset reads them."
    (folder/'tar').mkdir()
    for k in range(0, len(recordings), 250):
        with tarfile.open(folder/'tar'/f'{k//250:03d}.tar', 'w') as tar:
            for i, x in enumerate(recordings[k:k+250], k):
                about = tarfile.TarInfo(f'{i:05d}.i16')
                about.size = x.nbytes
                tar.addfile(about, io.BytesIO(x.tobytes()))

def write_wfdb(folder, recordings):
    "WFDB files named as those of the Challenge 2021."
    from ecg_nbdev.core import Record
    from ecg_nbdev.records import write_record
    for i, x in enumerate(recordings): write_record(Record(x*SCALE, FS, f'E{i+1:05d}', ('AF',)), folder/'wfdb')


# ---- the ways: each opens its files and gives a function (rows, starts) → (B, 12, size)

def memory(folder):
    x, out = np.array(np.load(folder/'windows'/'x.npy', mmap_mode='r')), np.empty((BATCH, 12, SIZE), np.float32)
    return lambda rows, starts: np.take(x, np.random.randint(0, len(x), BATCH), axis=0, out=out, mode='clip')

def in_cache(folder):
    x, out = np.load(folder/'windows'/'x.npy', mmap_mode='r')[:BATCH]+0, np.empty((BATCH, 12, SIZE), np.float32)
    def batch(rows, starts):
        np.copyto(out, x)
        return out
    return batch

def store(folder):
    from ecg_nbdev.store import Store
    held = Store(folder/'store')
    return lambda rows, starts: held.gather(rows, starts, SIZE)

def by_sample(folder):
    n = np.load(folder/'lengths.npy')
    held, offset = np.memmap(folder/'by_sample'/'signal.i16', '<i2', 'r').reshape(-1, 12), n.cumsum()-n
    def piece(row, start):
        units = held[offset[row]+start:offset[row]+min(start+SIZE, n[row])]
        signal = units.T*SCALE
        if units.min() == -32768: signal[units.T == -32768] = np.nan
        return signal
    def batch(rows, starts):
        out = np.empty((len(rows), 12, SIZE), np.float32)
        for window, row, start in zip(out, rows, starts):
            signal = piece(row, start)
            window[:, :signal.shape[1]] = signal
            window[:, signal.shape[1]:] = np.nan
        return out
    return batch

def of_array(held, folder):
    "Windows of an array (12, all samples)."
    n = np.load(folder/'lengths.npy')
    offset = n.cumsum()-n
    def batch(rows, starts):
        first, last = offset[rows]+starts, offset[rows]+np.minimum(starts+SIZE, n[rows])
        return in_millivolts(held[:, i:j] for i, j in zip(first.tolist(), last.tolist()))
    return batch

def in_millivolts(pieces, n=BATCH):
    "A batch of (12, size) int16, by the quickest way that numpy has."
    out = np.empty((n, 12, SIZE), np.float32)
    for window, piece in zip(out, pieces):
        k = piece.shape[1]
        if k < SIZE: window[:, k:], window = np.nan, window[:, :k]
        window[:] = piece
        window *= SCALE
    return out

def zarr(folder):
    import zarr
    return of_array(zarr.open_array(folder/'zarr', mode='r'), folder)

def zarr_raw(folder):
    import zarr
    return of_array(zarr.open_array(folder/'zarr_raw', mode='r'), folder)

def arrow(folder):
    import pyarrow as pa
    held = pa.ipc.open_file(pa.memory_map(str(folder/'arrow'/'x.arrow'))).read_all()['signal'].chunk(0)
    def signal(row): return np.frombuffer(held[row].as_buffer(), '<i2').reshape(12, -1)
    return lambda rows, starts: in_millivolts(signal(r)[:, s:s+SIZE] for r, s in zip(rows.tolist(), starts.tolist()))

def parquet(folder):
    import pyarrow.parquet as pq
    held = pq.ParquetFile(folder/'parquet'/'x.parquet', memory_map=True)
    def signal(row):
        group = held.read_row_group(row//8)['signal']
        return np.frombuffer(group[row % 8].as_buffer(), '<i2').reshape(12, -1)
    return lambda rows, starts: in_millivolts(signal(r)[:, s:s+SIZE] for r, s in zip(rows.tolist(), starts.tolist()))

def tar_indexed(folder):
    places = []
    for file in sorted((folder/'tar').glob('*.tar')):
        held = np.memmap(file, 'u1', 'r')
        with tarfile.open(file) as tar: places += [(held, m.offset_data, m.size) for m in tar]
    def signal(row):
        held, begin, n = places[row]
        return np.asarray(held[begin:begin+n]).view('<i2').reshape(12, -1)
    return lambda rows, starts: in_millivolts(signal(r)[:, s:s+SIZE] for r, s in zip(rows.tolist(), starts.tolist()))

def web(folder):
    "One window of each recording, shuffled by a buffer of a thousand, again and again."
    import webdataset as wds
    rng = np.random.default_rng(0)
    def window(sample):
        x = np.frombuffer(sample['i16'], '<i2').reshape(12, -1)
        start = rng.integers(0, max(x.shape[1]-SIZE, 0)+1)
        return in_millivolts([x[:, start:start+SIZE]], 1)[0]
    files = [str(file) for file in sorted((folder/'tar').glob('*.tar'))]
    held = wds.WebDataset(files, shardshuffle=100, seed=0).repeat().shuffle(1000).map(window)
    held = iter(held.batched(BATCH, collation_fn=np.stack))
    return lambda rows, starts: next(held)

def again(loader):
    "Batches of a loader without end."
    while True: yield from loader

def tsai_loader(folder, inplace):
    "tsai's data loader of an array on disk, shuffled."
    from tsai.data.core import TSDataLoaders, TSDatasets
    x = np.load(folder/'windows'/'x.npy', mmap_mode='c')
    tfms = None if inplace else [lambda x: x, lambda y: y]
    data = TSDatasets(x, np.zeros(len(x), np.int64), tfms=tfms, inplace=inplace)
    held = again(TSDataLoaders.from_dsets(data, data, bs=[BATCH, BATCH], num_workers=0, drop_last=True).train)
    return lambda rows, starts: next(held)[0]

def tsai(folder): return tsai_loader(folder, False)
def tsai_inplace(folder): return tsai_loader(folder, True)

def torch_ecg_config():
    from torch_ecg.cfg import CFG
    from torch_ecg.databases.datasets.cinc2021.cinc2021_cfg import CINC2021TrainCfg
    config = CFG({**CINC2021TrainCfg})
    config.update(fs=FS, input_len=SIZE, siglen=SIZE, np_dtype=np.float32, all_classes=['AF'])
    return config

def torch_ecg_files(folder):
    "Its reader of WFDB files in torch's loader, without further preparation; all windows of a recording count."
    from torch_ecg.databases import CINC2021
    from torch_ecg.databases.datasets.cinc2021.cinc2021_dataset import _FastDataReader
    reader = CINC2021(db_dir=folder/'wfdb', fs=FS, verbose=0)
    data, held = _FastDataReader(reader, list(reader), torch_ecg_config()), []
    def batch(rows, starts):
        while sum(map(len, held)) < BATCH: held.append(data[np.random.randint(0, len(data))][0])
        found = np.concatenate(held)
        held[:] = [found[BATCH:]]
        return found[:BATCH]
    return batch

def torch_ecg_memory(folder):
    "All windows in memory, as `CINC2021Dataset(lazy=False)` holds them, in torch's loader."
    import torch
    from torch_ecg.databases.datasets import CINC2021Dataset
    data = CINC2021Dataset.__new__(CINC2021Dataset)
    data._signals = np.array(np.load(folder/'windows'/'x.npy', mmap_mode='r'))
    data._labels = np.zeros((len(data._signals), 26), np.float32)
    held = again(torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True))
    return lambda rows, starts: next(held)[0]


WAYS = { # name in the table, its files, whether the environment of peers is needed
    memory: ('float32 array in memory: plain copy', 'windows', False),
    in_cache: ('one batch copied again and again, in the cache', 'windows', False),
    store: ('this package: int16, lead by lead, memory-mapped', 'store', False),
    by_sample: ('its format before: int16, sample by sample', 'by_sample', False),
    arrow: ('Arrow IPC, memory-mapped', 'arrow', False),
    tar_indexed: ('tar shards, indexed and memory-mapped', 'tar', False),
    parquet: ('Parquet, groups of eight recordings', 'parquet', False),
    zarr_raw: ('zarr 3, not compressed', 'zarr_raw', False),
    zarr: ('zarr 3, zstd', 'zarr', False),
    web: ('webdataset, tar shards in order', 'tar', True),
    tsai: ('tsai on a numpy memmap, item by item', 'windows', True),
    tsai_inplace: ('tsai on a numpy memmap, inplace', 'windows', True),
    torch_ecg_memory: ("torch_ecg's data set, all in memory", 'windows', True),
    torch_ecg_files: ("torch_ecg's data set, from its files", 'wfdb', True)}


# ---- in a process of its own

def draws(folder, seed):
    "Random windows without end: (rows, starts)."
    n, rng = np.load(folder/'lengths.npy'), np.random.default_rng(seed)
    while True:
        rows = rng.integers(0, len(n), BATCH)
        yield rows, rng.integers(0, np.maximum(n[rows]-SIZE, 0)+1)

def seconds_of(batch, drawn, n, clock=time.process_time):
    "Processor seconds of `n` batches: others may be at work on this machine."
    asked = [next(drawn) for _ in range(n)]
    start = clock()
    for rows, starts in asked: batch(rows, starts)
    return clock()-start

def warm_up(batch, drawn, seconds=4.):
    "Draw as many windows as there are three times over, or for some seconds."
    start = time.perf_counter()
    for _ in range(3*DISTINCT*TIMES//BATCH):
        batch(*next(drawn))
        if time.perf_counter()-start > seconds: break

def measure_warm(way, folder, repeats=15):
    "Windows a processor second of a way and of the yardstick, by turns."
    drawn, batch, copy = draws(folder, os.getpid()), way(folder), memory(folder)
    x = np.asarray(batch(*next(drawn)))
    assert x.shape == (BATCH, 12, SIZE) and x.dtype == np.float32, (x.shape, x.dtype)
    warm_up(batch, drawn)
    n = int(np.clip(.1/seconds_of(batch, drawn, 1), 1, 40))
    times = [(seconds_of(batch, drawn, n)/n, seconds_of(copy, drawn, 40)/40) for _ in range(repeats)]
    own, plain = np.min(times, axis=0)
    return {'windows_s': BATCH/own, 'copy_s': BATCH/plain}

def measure_cold(way, folder, n=8):
    "Windows a second from opening on."
    drawn = draws(folder, 1)
    __import__('pandas')
    start = time.perf_counter()
    batch = way(folder)
    opened = time.perf_counter()
    return {'windows_s': n*BATCH/seconds_of(batch, drawn, n, time.perf_counter), 'open_s': opened-start}

def let_go(folder):
    "Have the system forget what it holds of a folder's files."
    for file in folder.rglob('*'):
        if not file.is_file(): continue
        with open(file, 'rb') as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

def measure_parts(folder):
    "Microseconds a window of the parts of `Store.gather`, each with those before it."
    from ecg_nbdev.store import Store
    held, drawn = Store(folder/'store'), draws(folder, 2)
    out = np.empty((BATCH, 12, SIZE), np.float32)
    def walk(rows, starts, do):
        for window, i, start in zip(out, rows.tolist(), starts.tolist()): do(window, held._units(i)[:, start:start+SIZE])
    def cast(window, units): window[:, :units.shape[1]] = units
    def product(window, units):
        window[:, :units.shape[1]] = units
        window *= SCALE
    def gaps(window, units):
        product(window, units)
        window[:, :units.shape[1]][units == -32768] = np.nan
    parts = {'find the window': lambda r, s: walk(r, s, lambda window, units: None),
             'and cast it to float32': lambda r, s: walk(r, s, cast),
             'and multiply it in the cache': lambda r, s: walk(r, s, product),
             'all of `Store.gather`': lambda r, s: held.gather(r, s, SIZE),
             'if every recording had gaps': lambda r, s: walk(r, s, gaps),
             'plain copy': memory(folder)}
    best = {name: np.inf for name in parts}
    warm_up(parts['all of `Store.gather`'], drawn)
    for _ in range(15):
        for name, part in parts.items(): best[name] = min(best[name], seconds_of(part, drawn, 40)/40/BATCH*1e6)
    return best

def measure_opening(folder, n=5):
    "Seconds of opening a store and of its first batch."
    from ecg_nbdev.store import Store
    times = []
    for _ in range(n):
        start = time.perf_counter()
        held = Store(folder)
        opened = time.perf_counter()
        held.gather(np.arange(BATCH), np.zeros(BATCH, int), SIZE)
        times.append((opened-start, time.perf_counter()-opened))
    return dict(zip(('open_ms', 'first_batch_ms'), np.min(times, axis=0)*1000))


# ---- in the process that measures

def asked(python, *words, n=1):
    "The answers, a dict each, of `n` processes that work at the same time; None where one failed, with its last line."
    command = [python, '-W', 'ignore', __file__, *map(str, words)]
    env = os.environ | {'OMP_NUM_THREADS': '1'}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
               for _ in range(n)]
    said = [p.communicate() for p in running]
    if any(p.returncode for p in running):
        print(f'{" ".join(map(str, words[:2]))}: not measured: {said[0][1].strip().splitlines()[-1]}', flush=True)
        return None
    return [json.loads(out.splitlines()[-1]) for out, _ in said]

def row_of(way, folder, python):
    "A way's row of the table."
    name, files, _ = WAYS[way]
    one = asked(python, '--warm', way.__name__, folder)
    if one is None: return None
    two, cold = asked(python, '--warm', way.__name__, folder, n=2), []
    for _ in range(3):
        let_go(folder/files)
        cold += asked(python, '--cold', way.__name__, folder)
    size = sum(file.stat().st_size for file in (folder/files).rglob('*') if file.is_file())
    both, plain = (sum(part[key] for part in two) for key in ('windows_s', 'copy_s'))
    return {'way': name, 'windows_s': one[0]['windows_s'], 'share_of_copy': one[0]['windows_s']/one[0]['copy_s'],
            'two_windows_s': both, 'two_share_of_copy': both/plain,
            'cold_windows_s': max(part['windows_s'] for part in cold), 'disk_mb': size/1e6}

def sparse_store(folder, n):
    "A store of `n` recordings whose signals take no room on the disk."
    import pandas as pd
    from ecg_nbdev.store import STORE_VERSION, shard_file
    folder.mkdir()
    per = 40_000 # recordings in a file
    names = pd.Series(np.arange(n)).map('S{:06d}'.format)
    index = {'id': names, 'patient': names, 'path': '/data/'+names+'.hea', 'recorded_fs': 500., 'age': 60., 'sex': 'F',
             'labels': 'AF', 'unknown': '', 'source': 'data', 'dx': 'AF', 'other': 0, 'shard': np.arange(n)//per,
             'offset': np.arange(n) % per*SIZE, 'n_samples': SIZE, 'gaps': False, 'clipped': 0, 'crc': 0,
             'mark': [os.urandom(16).hex() for _ in range(n)]}
    pd.DataFrame(index).to_parquet(folder/'index.parquet')
    for k in range(-(-n//per)):
        with open(shard_file(folder, k), 'wb') as f: f.truncate(per*SIZE*24)
    (folder/'store.json').write_text(json.dumps(about(STORE_VERSION)))

def opening_rows(folder):
    "Opening stores of some sizes, in one process and in eight at once."
    for n in (1000, 10_000, 100_000):
        sparse_store(folder/str(n), n)
        for processes in (1, 8):
            found = asked(sys.executable, '--opening', folder/str(n), n=processes)
            yield {'records': n, 'processes': processes, 'open_ms': np.median([f['open_ms'] for f in found]),
                   'first_batch_ms': np.median([f['first_batch_ms'] for f in found]),
                   'index_mb': (folder/str(n)/'index.parquet').stat().st_size/1e6}

def save(name, rows):
    "Write a table and show it."
    import pandas as pd
    from ecg_nbdev.core import whole_file
    table = pd.DataFrame(rows)
    with whole_file(OUT/f'{name}.csv') as f: table.to_csv(f, index=False, float_format='%.4g')
    print(table.round(3).to_string(), flush=True)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers-python', help='the Python of an environment with tsai, torch_ecg and webdataset')
    parser.add_argument('--only', nargs='*', help='ways to measure, printed and not saved')
    for part in ('warm', 'cold'): parser.add_argument('--'+part, nargs=2, help=argparse.SUPPRESS)
    for part in ('parts', 'opening'): parser.add_argument('--'+part, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    by_name = {way.__name__: way for way in WAYS}
    if args.warm: return print(json.dumps(measure_warm(by_name[args.warm[0]], Path(args.warm[1]))))
    if args.cold: return print(json.dumps(measure_cold(by_name[args.cold[0]], Path(args.cold[1]))))
    if args.parts: return print(json.dumps(measure_parts(args.parts)))
    if args.opening: return print(json.dumps(measure_opening(args.opening)))
    with tempfile.TemporaryDirectory(prefix="store-") as folder: compare(Path(folder), args, by_name)

def compare(folder, args, by_name):
    "Make the files, measure every way."
    write_all(folder)
    rows = []
    for name, way in by_name.items():
        if args.only and name not in args.only: continue
        peers = WAYS[way][2]
        if peers and not args.peers_python: print(f'{name}: not measured: give --peers-python'); continue
        row = row_of(way, folder, args.peers_python if peers else sys.executable)
        if row: rows.append(row); print(row, flush=True)
    if args.only: return
    save('store', rows)
    parts = asked(sys.executable, '--parts', folder)[0]
    save('store_parts', [{'part': part, 'us_a_window': us} for part, us in parts.items()])
    (folder/'opening').mkdir()
    save('store_opening', opening_rows(folder/'opening'))

if __name__ == '__main__': main()
