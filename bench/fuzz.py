"""Files that are wrong in ways nobody thought of: `python bench/fuzz.py $ECG_DATA --minutes 10`.

A corpus of real and made files of every format is changed: bits, numbers, lengths, pieces that are missing, twice, or of
another file. Each mutant is read by what reads that format, in a child process. Right is an answer or an `ECGError` of one
line; all else is a finding: kept in runs/fuzz, counted in bench/results/fuzz.csv. It may take 10 s of the processor, and
1 GiB of memory that the process holds (VmRSS, VmHWM) beyond what the imports take; 3 GiB may be asked for (VmSize).

- `--engine atheris`, where that is installed: guided by counters of lines and branches, see bench/guided.py.
- `--engine random`: blind. A mutant whose outcome (its error, digits left out) is new for its format becomes a file of the
  corpus itself, so that the search goes on from where it found something.
"""
import multiprocessing, os, random, re, resource, shutil, sys, tempfile, time, warnings
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from fastcore.script import call_parse

SECONDS, MEMORY = 10, 1 << 30
OUTCOMES = 'read', 'refused', 'traceback', 'lines', 'hang', 'memory', 'crash'


# --- what is tried with a file of each format

def read_any(path):
    from ecg_nbdev.records import read_record
    return read_record(path, missing='nan').n

def read_table(path):
    from ecg_nbdev.records import read_record
    return read_record(path, missing='nan', rate=500, unit='mV').n

def read_stream(path):
    from ecg_nbdev.stream import open_stream
    return sum(1 for _, _ in zip(open_stream(path).blocks(0), range(3)))

def read_labels(path):
    from ecg_nbdev.labels import read_metadata, read_ptbxl, read_reference
    for read in (read_reference, read_ptbxl, read_metadata):
        try: return len(read(path) or ())
        except Exception as e: error = e
    raise error

def read_model(path):
    from ecg_nbdev.bundle import load_bundle
    from ecg_nbdev.sim.synth import cohort_record
    return load_bundle(path.parent).predict(cohort_record(0, 0)).labels.tolist()

def read_onnx(path):
    from ecg_nbdev.export import load_onnx
    return load_onnx(path).outputs([np.random.default_rng(0).normal(0, .3, (12, 1000)).astype(np.float32)]).shape

def read_store(path):
    from ecg_nbdev.cohort import scan
    from ecg_nbdev.store import Store
    store = Store(path.parent)
    first = store.gather([0], [0], 100).shape, store.record(0).n, str(store)
    return first, len(scan(path.parent, progress=False).table), store.verify()

def read_listing(path):
    from ecg_nbdev.fetch import _listed
    listed = _listed(path.read_bytes().decode('utf-8', 'replace'), 'training/cpsc_2018')
    assert not [name for name in listed if name.startswith('/') or '..' in name.split('/') or '\\' in name]
    return len(listed)

def read_saved(path):
    from ecg_nbdev.predictions import load_predictions
    return len(load_predictions(path))


# --- the corpus: (format, reader, file that is changed, files that lie beside it)

def made(folder):
    "Files of the formats of which no real ones are at hand."
    import edfio, h5py, pyarrow as pa, pyarrow.parquet as pq
    from scipy.io import savemat
    from ecg_nbdev.bundle import load_pretrained, save_bundle
    from ecg_nbdev.core import LEADS
    from ecg_nbdev.export import export_onnx
    from ecg_nbdev.predictions import Predictions, save_predictions
    from ecg_nbdev.cohort import scan
    from ecg_nbdev.simulated_set import synth_run
    from ecg_nbdev.signal import Preparation
    from ecg_nbdev.sim.synth import cohort_record
    from ecg_nbdev.packing import build_store
    for i in range(12):
        record = cohort_record(i, 0, seconds=3)
        name, x = folder/f'made{i}', record.signal
        np.save(f'{name}.npy', x)
        np.savez_compressed(f'{name}.npz', signal=x, fs=500, leads=LEADS)
        pd.DataFrame(x.T, columns=LEADS).round(3).to_csv(f'{name}.csv', index=False)
        pq.write_table(pa.table(dict(zip(LEADS, x)), metadata={'fs': '500', 'unit': 'mV'}), f'{name}.parquet')
        savemat(f'{name}_feats.mat', {'feats': x.astype(float), 'curr_sample_rate': 400.}, do_compression=bool(i % 2))
        savemat(f'{name}_ecg.mat', {'ECG': {'sex': 'Male', 'age': 50., 'data': x}}, do_compression=bool(i % 2))
        with h5py.File(f'{name}.h5', 'w') as f: f.create_dataset('ecg', data=x, compression='gzip' if i % 2 else None)
        with h5py.File(f'{name}_73.mat', 'w', userblock_size=512) as f:
            f['ECG/data'], f['ECG/age'], f['ECG/sex'] = x.T, [[50.]], np.array([[77]], np.uint16)
            f['ECG/sex'].attrs['MATLAB_class'] = np.bytes_('char')
        leads = [edfio.EdfSignal(v.astype(float), 500, label=lead, physical_dimension='mV') for lead, v in zip(LEADS, x)]
        edfio.Edf(leads).write(f'{name}.edf')
        with open(f'{name}_73.mat', 'r+b') as f: f.write(b'MATLAB 7.3 MAT-file'.ljust(124)+b'\0\2IM')
    synth_run(folder/'data', n=10, show=False)
    build_store(scan(folder/'data', progress=False).table, folder/'store', Preparation(), progress=False)
    predictor = load_pretrained()
    save_bundle(predictor, folder/'model')
    export_onnx(predictor, folder/'alone.onnx')
    save_predictions(Predictions(['a', 'b'], np.full((2, 9), .5), np.eye(9)[:2], 'test'), folder/'saved.parquet')
    lines = (f'{i:064x}  training/cpsc_2018/g1/A{i:04d}.mat\n' for i in range(50))
    (folder/'SHA256SUMS.txt').write_text(''.join(lines))
    return folder


LABELS = 'REFERENCE.csv', 'ptbxl_database.csv', 'metadata.csv', 'exams.csv'
MADE = {'.npy': 'NumPy', '.npz': 'NumPy archive', '.csv': 'CSV', '.parquet': 'Parquet', '.h5': 'HDF5', '.mat': 'MATLAB', '.edf': 'EDF'}

def corpus(data, folder):
    "Format → list of (reader, file, files beside it)."
    found, folder = defaultdict(list), made(folder)
    for header in sorted([*Path(data).rglob('*.hea'), *(folder/'data').glob('*.hea')]):
        beside = [p for p in header.parent.glob(f'{header.stem}.*') if p.suffix not in ('.hea', '.md')][:4]
        found['WFDB header'].append((read_any, header, beside))
        for signal in beside[:1]: found['WFDB signal'].append((read_any, signal, [header, *beside[1:]]))
    for name in ('WFDB header', 'WFDB signal'): found[name] = random.Random(0).sample(found[name], min(120, len(found[name])))
    found['WFDB stream'] = [(read_stream, *rest) for _, *rest in found['WFDB header'][:20]]
    with_header = {p.with_suffix('') for p in Path(data).rglob('*.hea')}
    for path in sorted(p for p in Path(data).rglob('*') if p.is_file() and p.stat().st_size < 3_000_000):
        kind = {'.mat': 'MATLAB', '.h5': 'HDF5', '.dcm': 'DICOM', '.edf': 'EDF', '.scp': 'SCP-ECG', '.ecg': 'ISHNE',
                '.xml': 'XML', '.txt': 'text'}.get(path.suffix.lower())
        if kind and path.with_suffix('') not in with_header: found[kind].append((read_any, path, []))
        if kind == 'EDF': found['EDF stream'].append((read_stream, path, []))
        if path.name in LABELS: found['labels'].append((read_labels, path, []))
    for path in sorted(folder.glob('made*')):
        kind = MADE[path.suffix]
        if path.name.endswith('_73.mat'): kind = 'MATLAB 7.3'
        if kind == 'EDF': found['EDF stream'].append((read_stream, path, []))
        found[kind].append((read_table if path.suffix in ('.npy', '.csv') else read_any, path, []))
    for kind, read, place, names in (('model', read_model, 'model', ('config.json', 'model.safetensors')),
                                     ('store', read_store, 'store', ('store.json', 'index.parquet', 'signal-000.i16'))):
        for name in names:
            found[kind].append((read, folder/place/name, [p for p in (folder/place).iterdir() if p.name != name]))
    found['ONNX'] = [(read_onnx, folder/'alone.onnx', [])]
    found['fetch'] = [(read_listing, folder/'SHA256SUMS.txt', [])]
    found['predictions'] = [(read_saved, folder/'saved.parquet', [])]
    return found


# --- changes

EVIL = [b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f', bytes(4), b'\x00\x00\x00\x80', bytes(8), b'\xff'*8]
WORDS = [b'0', b'-1', b'1e999', b'nan', b'99999999999999999999', b'/etc/passwd', b'../../x', b'\x1b[2J', b'%s%n', b'=1+1',
         b'\xc3', b'~']

def _at(data, r): # near the beginning, where the counts are, half of the time
    return r.randrange(min(len(data), 1024) if r.random() < .5 else len(data)) if data else 0

def _bits(data, r, other):
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 4, 32))):
        if out: out[_at(out, r)] ^= 1 << r.randrange(8)
    return bytes(out)
def _number(data, r, other):
    at, evil = _at(data, r), r.choice(EVIL)
    return data[:at]+evil+data[at+len(evil):]
def _cut(data, r, other): return data[:_at(data, r)]
def _gone(data, r, other): return data[:(at := _at(data, r))]+data[at+r.choice((1, 4, 8, 100, 5000)):]
def _twice(data, r, other):
    at = _at(data, r)
    return data[:at]+data[at:at+r.choice((4, 64, 3000))]*r.choice((2, 20, 300))+data[at:]
def _spliced(data, r, other): return data[:_at(data, r)]+other[_at(other, r):]
def _blank(data, r, other):
    at = _at(data, r)
    return data[:at]+r.choice((b' ', b'\n', b'\0', b'1', b'(', b'#a: '))*r.choice((10, 20_000))+data[at:]
def _word(data, r, other):
    words = list(re.finditer(rb'[\w.+-]+', data[:4096]))
    if not words: return _number(data, r, other)
    w = r.choice(words)
    return data[:w.start()]+r.choice(WORDS)+data[w.end():]

CHANGES = _bits, _number, _cut, _gone, _twice, _spliced, _blank, _word

def mutant(data, r, other):
    for _ in range(r.choice((1, 1, 1, 2, 4))): data = r.choice(CHANGES)(data, r, other)
    return data[:8_000_000]


# --- the child that reads

def memory(name):
    "Bytes that this process holds (VmRSS), has held (VmHWM) or may use (VmSize)."
    return int(re.search(rf'{name}:\s*(\d+)', Path('/proc/self/status').read_text())[1])*1024

def outcome_of(read, path):
    "One of `OUTCOMES`, and what was read or said."
    from ecg_nbdev.core import ECGError
    try: return 'read', str(read(path))
    except ECGError as e: return 'lines' if len(str(e).splitlines()) > 1 else 'refused', str(e)
    except BaseException as e: return 'traceback', f'{type(e).__name__}: {e}'

def child(pipe):
    "Read what is named, say what came of it."
    import ecg_nbdev.all, scipy.io, wfdb, h5py, pydicom, pyarrow.parquet, onnxruntime # noqa: memory of imports does not count
    warnings.simplefilter('ignore')
    resource.setrlimit(resource.RLIMIT_AS, (memory('VmSize')+3*MEMORY,)*2) # asked for; what is held is compared below
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send('ready')
    while True:
        read, path = pipe.recv()
        Path('/proc/self/clear_refs').write_text('5') # the peak begins anew
        before = memory('VmRSS')
        outcome = outcome_of(globals()[read], path)
        if memory('VmHWM')-before > MEMORY: outcome = 'memory', f'{(memory("VmHWM")-before) >> 20} MB'
        pipe.send(outcome)

class Reader:
    "A child process, started anew when one has ended or hangs."
    def __init__(self): self.process = None
    def start(self):
        context = multiprocessing.get_context('spawn')
        self.pipe, inner = context.Pipe()
        self.process = context.Process(target=child, args=(inner,), daemon=True)
        self.process.start()
        inner.close()
        self.pipe.recv()
    def stop(self):
        self.process.kill()
        self.process.join()
        self.process = None
    def __call__(self, read, path):
        if self.process is None: self.start()
        begun, used = time.monotonic(), self.used()
        try: # the machine is shared: seconds of the child's own work count, and a minute of any
            self.pipe.send((read.__name__, path))
            while not self.pipe.poll(.5):
                if self.used()-used < SECONDS and time.monotonic()-begun < 6*SECONDS: continue
                self.stop()
                return 'hang', f'more than {SECONDS} s'
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.process = None
            return 'crash', f'exit {code}'
    def used(self):
        "Seconds that the child has worked."
        stat = Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(stat[11])+int(stat[12]))/os.sysconf('SC_CLK_TCK')


def signature(outcome, text):
    "An outcome with names and numbers left out."
    return outcome, '' if outcome == 'read' else re.sub(r'[\d.]+|"[^"]*"|/\S+', '#', text)[:120]


def search_blindly(seeds, minutes, seed, place, out):
    "Change files at random; rows of the table."
    r, reader, counts, seen, found = random.Random(seed), Reader(), defaultdict(Counter), set(), Counter()
    held = {kind: [(read, path.name, path.read_bytes(), beside) for read, path, beside in files] for kind, files in seeds.items()}
    end = time.monotonic()+60*minutes
    while time.monotonic() < end:
        kind = r.choice(list(held))
        read, name, content, beside = r.choice(held[kind])
        changed = mutant(content, r, r.choice(held[kind])[2])
        with tempfile.TemporaryDirectory(dir=place) as folder:
            for path in beside: shutil.copy(path, folder)
            target = Path(folder)/name
            target.write_bytes(changed)
            outcome, text = reader(read, target)
            text = text.replace(folder, '')
        counts[kind][outcome] += 1
        new = (kind, *signature(outcome, text))
        if new in seen: continue
        seen.add(new)
        if len(changed) < 200_000 and len(held[kind]) < 400: held[kind].append((read, name, changed, beside))
        if outcome in ('read', 'refused'): continue
        found[outcome] += 1
        (out/kind).mkdir(parents=True, exist_ok=True)
        (out/kind/f'{outcome}-{found[outcome]}-{name}').write_bytes(changed)
        print(f'{kind} {name}: {outcome}: {text[:300]}', flush=True)
    if reader.process: reader.stop()
    return [{'format': kind, 'files': len(seeds[kind]), 'cases': c.total(), **{o: c[o] for o in OUTCOMES},
             'outcomes that differ': sum(s[0] == kind for s in seen)} for kind, c in sorted(counts.items())]


@call_parse
def main(
    data:str, # folder of real files, ECG_DATA
    minutes:float=10., # how long
    engine:str=None, # atheris or random; atheris where it is installed
    seed:int=0, # of the changes
    out:str='runs/fuzz', # what was found goes there
    table:str='bench/results/fuzz.csv', # counts by format
    only:str=None, # some formats, with commas between them
):
    "Change files and read them."
    engine, out = engine or ('atheris' if find_spec('atheris') else 'random'), Path(out).resolve()
    if engine == 'atheris':
        import guided
        guided.watch()
        warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as place:
        seeds = {kind: files for kind, files in corpus(data, Path(place)).items() if files}
        if only: seeds = {kind: seeds[kind] for kind in only.split(',')}
        print(f'{sum(map(len, seeds.values()))} files of {len(seeds)} formats, {engine}', file=sys.stderr)
        if engine == 'atheris': rows = guided.search_all(seeds, minutes, Path(place), out, sys.modules[__name__])
        else: rows = search_blindly(seeds, minutes, seed, Path(place), out)
    rows = pd.DataFrame(rows).assign(engine=engine)
    Path(table).parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(table, index=False)
    print(rows.to_string(index=False))
    sys.exit(bool(rows[[o for o in OUTCOMES if o not in ('read', 'refused')]].to_numpy().any()))
