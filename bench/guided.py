"""The engine `atheris` of bench/fuzz.py: libFuzzer looks for files on which lines run that ran on no file before.

Each line and branch of `WATCHED` has a counter. A mutant that moves a counter as none did becomes a file of the corpus, and
is changed on. A format is read in a process of its own, forked when all is imported. An input is the number of a file of
the corpus (two bytes: which reader, which name, which files lie beside it) and the content that stands in its place.
"""
import hashlib, os, random, re, resource, shutil, signal, sys, time
from multiprocessing import RawArray

WATCHED = ['ecg_nbdev', 'ecgdatakit']
LOST = {'crash': 'crash', 'oom': 'memory', 'timeout': 'hang', 'slow-unit': None, 'leak': None} # what libFuzzer calls it
STATUS = re.compile(r'^#\d+\s+(\w+)\s+cov: (\d+)', re.M)
MINUTE, TIMES = 60, 20 # s by the clock at most a file, for the machine is shared; new starts at most


def watch():
    "Import what reads files, with counters."
    import atheris
    with atheris.instrument_imports(include=WATCHED):
        import ecg_nbdev.all, ecg_nbdev.export, ecg_nbdev.fetch, ecg_nbdev.formats, ecg_nbdev.stream # noqa
        from ecgdatakit.parsing.parser import FileParser # noqa
    import h5py, onnxruntime, pydicom, pyarrow.parquet, scipy.io, wfdb # noqa: memory of imports does not count


def wait_for(child, end):
    "How a search came to its end; killed where it has none."
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(1)
        if time.monotonic() > end: os.kill(child, signal.SIGKILL)
    return ended[1]

class Target:
    "The files of one format, each in a folder with those beside it."
    def __init__(self, kind, files, place, out, fuzz):
        self.kind, self.files, self.fuzz = kind, files, fuzz
        self.out, self.place, self.seeds = out/kind, place/kind, place/kind/'corpus'
        self.seeds.mkdir(parents=True)
        self.out.mkdir(parents=True, exist_ok=True)
        self.paths, self.longest = [], 0
        self.counts, self.peak = RawArray('Q', len(fuzz.OUTCOMES)), RawArray('Q', 1)
        for i, (read, path, beside) in enumerate(files): self._lay(i, path, beside)

    def _lay(self, i, path, beside):
        folder = self.place/str(i)
        folder.mkdir()
        for other in beside: shutil.copy(other, folder)
        content = path.read_bytes()
        self.longest = max(self.longest, len(content))
        self.paths.append(folder/path.name)
        (self.seeds/f'{i:05d}').write_bytes(i.to_bytes(2, 'big')+content)

    def split(self, data):
        "The number of a file, and the content in its place."
        return int.from_bytes(data[:2], 'big') % len(self.files), data[2:]

    def one(self, data):
        "Read an input; what is wrong is written down, and the search goes on until its time is over."
        if time.monotonic() > self.end: self.leave()
        i, content = self.split(data)
        read, path = self.files[i][0], self.paths[i]
        path.write_bytes(content)
        begun = time.process_time()
        outcome, text = self.fuzz.outcome_of(read, path)
        if time.process_time()-begun > self.fuzz.SECONDS: outcome, text = 'hang', f'{time.process_time()-begun:.0f} s'
        self.counts[self.fuzz.OUTCOMES.index(outcome)] += 1
        if outcome not in ('read', 'refused'): self.keep(outcome, content, text.replace(str(path.parent), ''), path.name)

    def leave(self):
        "End at once: libraries that have threads wait for them in vain in a fork."
        self.peak[0] = max(self.peak[0], self.fuzz.memory('VmHWM') >> 20)
        os._exit(0)

    def keep(self, outcome, content, text, name):
        "Write a finding down, once for each kind of message."
        mark = hashlib.sha1(repr(self.fuzz.signature(outcome, text)).encode()).hexdigest()[:8]
        file = self.out/f'{outcome}-{mark}-{name}'
        if not file.exists(): print(f'FOUND {self.kind} {name}: {outcome}: {text[:300]}', file=sys.stderr, flush=True)
        file.write_bytes(content)

    def change(self, data, most, seed):
        "A mutant: libFuzzer's, or one of those that know where formats have their counts."
        import atheris
        r, (_, content) = random.Random(seed), self.split(data)
        if r.random() < .5: changed = atheris.Mutate(content, max(1, most-2))
        else: changed = self.fuzz.mutant(content, r, self.files[r.randrange(len(self.files))][1].read_bytes())
        return (data[:2]+changed)[:most]

    def search(self, log):
        "In a fork: look until the time is over; never comes back."
        import atheris
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (self.fuzz.memory('VmSize')+3*self.fuzz.MEMORY,)*2)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1), os.dup2(fd, 2)
        most = (self.fuzz.memory('VmRSS')+self.fuzz.MEMORY) >> 20
        options = [f'-rss_limit_mb={most}', f'-timeout={MINUTE}', f'-artifact_prefix={self.place}/lost-', '-seed=1',
                   f'-max_len={min(self.longest+3000, 3_000_000)}', '-len_control=0']
        atheris.Setup(['fuzz', *options, str(self.seeds)], self.one, custom_mutator=self.change)
        atheris.Fuzz()
        os._exit(0)

    def run(self, seconds):
        "Look for so long, and again where the process was lost; a row of the table."
        log, self.end = self.out/'log.txt', time.monotonic()+seconds
        log.write_text('')
        for _ in range(TIMES):
            child = os.fork()
            if not child:
                try: self.search(log)
                finally: os._exit(1)
            status = wait_for(child, self.end+2*MINUTE)
            self.collect()
            if not status or time.monotonic() > self.end: break
        return self.row(log.read_text(errors='replace'))

    def collect(self):
        "Inputs on which the process was lost: they become findings."
        for path in self.place.glob('lost-*'):
            outcome = LOST.get(path.name.split('-')[1])
            i, content = self.split(path.read_bytes())
            path.unlink()
            if not outcome: continue
            self.counts[self.fuzz.OUTCOMES.index(outcome)] += 1
            self.keep(outcome, content, hashlib.sha1(content).hexdigest(), self.paths[i].name)

    def row(self, said):
        covered, counts = STATUS.findall(said), dict(zip(self.fuzz.OUTCOMES, self.counts))
        first = next((int(cov) for what, cov in covered if what == 'INITED'), None)
        return {'format': self.kind, 'files': len(self.files), 'cases': sum(self.counts), **counts,
                'counters of the files': first, 'counters in the end': int(covered[-1][1]) if covered else None,
                'files that moved a counter': len(list(self.seeds.iterdir()))-len(self.files),
                'peak MB, imports included': self.peak[0]}


def search_all(seeds, minutes, place, out, fuzz):
    "Each format for as long as the others; rows of the table, whether anything was found."
    rows, kinds = [], sorted(kind for kind in seeds if seeds[kind])
    for kind in kinds:
        rows.append(Target(kind, seeds[kind], place, out, fuzz).run(60*minutes/len(kinds)))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows
