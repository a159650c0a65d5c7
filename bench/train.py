"""How fast the networks train: windows a second of one training step (forward, backward, optimizer), in one run.

    python bench/train.py                                    the family, and twelve plain nn.LSTM, one after the other
    python bench/train.py --peers-python PEERS/bin/python    and tsai's InceptionTime, xresnet1d101 and LSTM 2x256

Peers need an environment of their own (torch 2.14.1, torchvision 0.29.1, tsai). Each group runs in a process of its
own, and the processes take turns, one step each, so that what else the machine does hits all alike. Speeds are medians
over the turns. Every network runs twice: with memory as the system's allocator handles it, and with memory kept
(`ecg_nbdev.parallel.keep_memory`); what that setting brings alone has a column of its own. The table is written to
bench/results/train.csv, ratios to train_ratios.csv, machine and versions beside them in train.json.
"""
import argparse, csv, json, os, platform, statistics, subprocess, sys, time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FS = 100 # Hz


# ---- what is measured: name → a function that makes (network, loss)

def ours(arch, **options):
    "A network of this package and its loss."
    from ecg_nbdev.losses import create_loss
    from ecg_nbdev.models import create_model
    return create_model(arch, fs=FS, **options), create_loss()

# The method's blocks, float32.
TWELVE = {'hidden': 64, 'bidirectional': False, 'pool': ('last',), 'bf16': False, 'dropout': 0.}

def plain():
    "The twelve-block model, its blocks called one after the other."
    import ecg_nbdev.blocks as blocks
    blocks.run_blocks = blocks.one_by_one
    return ours('multilead', **TWELVE)

def inception_time():
    from tsai.models.InceptionTime import InceptionTime
    return InceptionTime(12, 9)

def xresnet1d101():
    from tsai.models.XResNet1d import xresnet1d101
    return xresnet1d101(12, 9)

def lstm():
    from tsai.models.RNN import LSTM
    return LSTM(12, 9, hidden_size=256, n_layers=2)

PEERS = {'InceptionTime': inception_time, 'xresnet1d101': xresnet1d101, 'LSTM 2x256': lstm}

def with_loss(create):
    import torch
    return create(), torch.nn.BCEWithLogitsLoss()

def peer(name):
    "A function that makes a peer and its loss."
    return partial(with_loss, PEERS[name])

KEPT = ', kept memory'  # behind the names of groups and networks whose memory is kept
PLAIN_GROUPS = {
    'family': {
        'crnn': partial(ours, 'crnn'), 'crnn, float32': partial(ours, 'crnn', bf16=False),
        'crnn, joint stem': partial(ours, 'crnn', stem='joint'), 'multilead': partial(ours, 'multilead'),
        'multilead_shared': partial(ours, 'multilead_shared'), 'joint': partial(ours, 'joint'),
        'lead': partial(ours, 'lead'), 'twelve blocks': partial(ours, 'multilead', **TWELVE),
        'twelve blocks, bfloat16': partial(ours, 'multilead', **{**TWELVE, 'bf16': True})},
    'plain': {'twelve nn.LSTM': plain},
    'peers': {name: peer(name) for name in PEERS},
}
GROUPS = PLAIN_GROUPS | {group+KEPT: {case+KEPT: make for case, make in cases.items()}
                         for group, cases in PLAIN_GROUPS.items()}


# ---- in the process of a group

def trainer(make, batch, seconds):
    "A function that does one training step, the operations of one window's forward pass, the parameters."
    import torch
    from ecg_nbdev.models import forward_cost
    torch.manual_seed(0)
    model, loss = make()
    x, y = torch.randn(batch, 12, round(seconds*FS)), (torch.rand(batch, 9) < .2).float()
    optimizer = torch.optim.AdamW(model.parameters())
    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return step, forward_cost(model, x[:1])['flops'], sum(p.numel() for p in model.parameters())

def matmul_peak(dtype, n=2048):
    "Operations a second of a large matrix product, the best of several."
    import torch
    a, took = torch.randn(n, n).to(getattr(torch, dtype)), []
    for _ in range(10):
        start = time.perf_counter()
        a@a
        took.append(time.perf_counter()-start)
    return 2*n**3/min(took)

def equality():
    "Largest relative difference between the twelve-block model and plain LSTMs, outputs and gradients."
    import torch
    import ecg_nbdev.blocks as blocks
    torch.manual_seed(0)
    model, loss = ours('multilead', **TWELVE)
    x, y = torch.randn(16, 12, 10*FS), (torch.rand(16, 9) < .2).float()
    fast, found = blocks.run_blocks, []
    for run in (blocks.one_by_one, fast):
        blocks.run_blocks = run
        out = model(x)
        found.append([out, *torch.autograd.grad(loss(out, y), model.parameters())])
    return max(((a-b).abs().max()/a.abs().max()).item() for a, b in zip(*found))

class Server:
    "Answers the questions of `Group.ask` in the process of a group."
    def __init__(self, cases, batch, seconds):
        self.cases, self.batch, self.seconds, self.steps = cases, batch, seconds, {}

    def make(self, case):
        "Make a network, and take a first step."
        import torch
        self.steps[case], flops, parameters = trainer(self.cases[case], self.batch, self.seconds)
        self.steps[case]()
        return {'flops': flops, 'parameters': parameters, 'torch': torch.__version__}

    def step(self, case):
        "Seconds of one step, by the clock and of the processor."
        clock, cpu = time.perf_counter(), time.process_time()
        self.steps[case]()
        return time.perf_counter()-clock, time.process_time()-cpu

    def peak(self, dtype): return matmul_peak(dtype)
    def equality(self): return equality()

def serve(group, args):
    "Answer lines of JSON: the name of a method of `Server` and its arguments."
    import torch
    torch.set_num_threads(args.threads)
    if group.endswith(KEPT):
        from ecg_nbdev.parallel import keep_memory
        keep_memory()
    server = Server(GROUPS[group], args.batch, args.seconds)
    for line in sys.stdin:
        what, *given = json.loads(line)
        print(json.dumps(getattr(server, what)(*given)), flush=True)


# ---- in the process that measures

class Group:
    "The process of a group."
    def __init__(self, name, python, args):
        self.name = name
        options = ('batch', 'seconds', 'threads')
        command = [python, '-W', 'ignore', __file__, '--serve', name]
        command += [word for option in options for word in (f'--{option}', str(getattr(args, option)))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, 'PYTHONPATH': str(ROOT)})

    def ask(self, *question):
        "The answer to the name of a method of `Server` and its arguments."
        self.process.stdin.write(json.dumps(question)+'\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer: raise SystemExit(f'the process of {self.name} ended: see its message above')
        return json.loads(answer)

def cpu_name():
    "The name of the processor."
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()

def measure(args):
    "What each network is, seconds of its steps, peaks of the machine, difference to plain LSTMs."
    chosen = [g for g in GROUPS if args.peers_python or not g.startswith('peers')]
    groups = {g: Group(g, args.peers_python if g.startswith('peers') else sys.executable, args) for g in chosen}
    cases = [(g, case) for g in chosen for case in GROUPS[g]]
    info = {case: groups[g].ask('make', case) for g, case in cases}
    times, peaks = {case: [] for _, case in cases}, {'float32': [], 'bfloat16': []}
    for turn in range(args.repeats):
        for dtype in peaks: peaks[dtype].append(groups['family'].ask('peak', dtype))
        for g, case in cases: times[case].append(groups[g].ask('step', case))
        print(f'turn {turn+1} of {args.repeats}', file=sys.stderr, flush=True)
    return info, times, {d: max(p) for d, p in peaks.items()}, groups['family'].ask('equality')


# ---- tables

def over(times, fast, slow, by=0):
    "Speed of one over another, the median over the turns, by the clock (0) or by the processor (1)."
    return statistics.median(b[by]/a[by] for a, b in zip(times[fast], times[slow]))

def row(case, turns, info, float32_peak, batch):
    "The speed of one network."
    clock, cpu = zip(*turns)
    median = statistics.median(clock)
    return {'network': case.removesuffix(KEPT), 'memory': 'kept' if case.endswith(KEPT) else 'as the system has it',
            'windows/s': batch/median, 'best windows/s': batch/min(clock), 'ms/step': 1e3*median,
            'cpu ms/step': 1e3*statistics.median(cpu), 'parameters': info['parameters'],
            'Mflops/window': info['flops']/1e6,
            'share of float32 matmul peak': 3*batch*info['flops']/median/float32_peak}

def table(info, times, peaks, batch):
    "The speed of every network, with and without kept memory, and how many times faster kept memory makes it."
    rows = {case: row(case, turns, info[case], peaks['float32'], batch) for case, turns in times.items()}
    for case in rows:
        kept = case.endswith(KEPT)
        rows[case]['times by kept memory'] = over(times, case, case.removesuffix(KEPT)) if kept else ''
    return [rows[name] for case in rows if not case.endswith(KEPT) for name in (case, case+KEPT)]

def ratios(times):
    "Speed of one network over another, both with and both without kept memory."
    pairs = [('twelve blocks', 'twelve nn.LSTM'), ('twelve blocks, bfloat16', 'twelve nn.LSTM')]
    pairs += [(case, name) for case in ('crnn', 'multilead') for name in PEERS]
    pairs = [(a+memory, b+memory) for memory in ('', KEPT) for a, b in pairs]
    return [{'faster': a, 'than': b, 'times': over(times, a, b), 'times by cpu': over(times, a, b, 1)}
            for a, b in pairs if b in times]

def text(value): return f'{value:.4g}' if isinstance(value, float) else str(value)

def write_csv(path, rows):
    "Rows as a CSV file."
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: text(v) for k, v in row.items()} for row in rows)

def show(rows):
    "Print rows in columns."
    lines = [list(rows[0]), *([text(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines: print('  '.join(cell.rjust(width) for cell, width in zip(line, widths)))
    print()


def options():
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers-python', help='the Python of an environment that holds tsai')
    parser.add_argument('--repeats', type=int, default=7, help='turns')
    parser.add_argument('--batch', type=int, default=64, help='windows in a batch')
    parser.add_argument('--seconds', type=float, default=10., help='length of a window')
    parser.add_argument('--threads', type=int, default=os.cpu_count(), help='threads of each process')
    parser.add_argument('--out', type=Path, default=ROOT/'bench/results', help='folder of the tables and train.json')
    parser.add_argument('--serve', help=argparse.SUPPRESS)
    return parser.parse_args()

def about(args, info, times, peaks, difference):
    "What was run, on which machine, and the times of every turn."
    command = 'python bench/train.py'+(' --peers-python …' if args.peers_python else '')
    return {'command': command, 'cpu': cpu_name(), 'threads': args.threads, 'batch': args.batch,
            'seconds': args.seconds, 'fs': FS, 'turns': args.repeats,
            'torch': {case: i['torch'] for case, i in info.items()}, 'matmul_peak_flops': peaks,
            'twelve_blocks_difference': difference, 'times_s': times}

def main():
    args = options()
    if args.serve: return serve(args.serve, args)
    info, times, peaks, difference = measure(args)
    rows, pairs = table(info, times, peaks, args.batch), ratios(times)
    show(rows)
    show(pairs)
    print(f'matmul peak: float32 {peaks["float32"]/1e9:.0f}, bfloat16 {peaks["bfloat16"]/1e9:.0f} Gflop/s; '
          f'twelve blocks against plain LSTMs, largest relative difference: {difference:.1e}')
    write_csv(args.out/'train.csv', rows)
    write_csv(args.out/'train_ratios.csv', pairs)
    (args.out/'train.json').write_text(json.dumps(about(args, info, times, peaks, difference), indent=1)+'\n')

if __name__ == '__main__': main()
