#!/usr/bin/env python
"""Is this tree fit to be released? Builds dist/, checks it, installs it in an empty environment, predicts a file there.

    python site/release.py

Stops at the first thing that is wrong, with exit status 1. Nothing is uploaded: pushing the tag `vX.Y.Z` does that.
"""
import configparser, json, re, shutil, subprocess, sys, tempfile, venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT/'dist'


def step(text): print(f'· {text}', flush=True)

def run(*command, cwd=ROOT, **kwargs):
    "Run a command; what it printed, where that is captured. Ends the release where it fails."
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, text=True, **kwargs)
    if done.returncode: sys.exit(f'{done.stdout or ""}{done.stderr or ""}\nrelease: this failed: {" ".join(words)}')
    return done.stdout

def text(name): return (ROOT/name).read_text(encoding='utf-8')

def versions():
    "The version, after making sure that every file that names one names the same."
    parser = configparser.ConfigParser(delimiters=['='], interpolation=None)
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    version = parser['DEFAULT']['version']
    module = re.search(r'^__version__ = "(.+)"$', text('ecg_nbdev/__init__.py'), re.M)[1]
    if module != version: sys.exit(f'release: ecg_nbdev/__init__.py says {module}, settings.ini says {version}')
    entry = re.search(rf'^## {re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)', text('CHANGELOG.md'), re.M | re.S)
    if not entry or not entry[1].strip(): sys.exit(f'release: CHANGELOG.md has nothing under "## {version}"')
    return version

def install_and_predict(wheel):
    "A simulated recording and the shipped model's answer, where only the wheel and its requirements are installed."
    with tempfile.TemporaryDirectory(prefix='ecg-release-') as d:
        env = Path(d)/'env'
        venv.create(env, with_pip=True)
        quietly = '--quiet', '--disable-pip-version-check'
        run(env/'bin/pip', 'install', *quietly, '-c', ROOT/'constraints.txt', wheel, cwd=d)
        where = run(env/'bin/python', '-c', 'import ecg_nbdev; print(ecg_nbdev.__file__)', cwd=d, capture_output=True)
        if str(env) not in where: sys.exit(f'release: the empty environment imports {where.strip()}')
        run(env/'bin/ecg-synth', 'recordings', '--n', 1, '--seed', 0, cwd=d, capture_output=True)
        header = next(Path(d).glob('recordings/**/*.hea'))
        answer = json.loads(run(env/'bin/ecg-predict', header, '--format', 'json', cwd=d, capture_output=True))
        return header.stem, answer[0] if isinstance(answer, list) else answer

def main():
    version = versions()
    step(f'version {version}: settings.ini, ecg_nbdev and CHANGELOG.md agree')
    stale = subprocess.run([sys.executable, ROOT/'site/build.py', '--check'], capture_output=True, text=True)
    if stale.returncode: sys.exit(f'release: docs/ is not current:\n{stale.stderr}')
    step('docs/ and README.md are current')
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', DIST, capture_output=True)
    wheel = next(DIST.glob('*.whl'))
    run(sys.executable, '-m', 'twine', 'check', '--strict', *DIST.iterdir(), capture_output=True)
    step(f'{wheel.name} and {next(DIST.glob("*.tar.gz")).name} pass `twine check --strict`')
    run(sys.executable, '-m', 'pytest', '-q', 'tests/test_house.py', capture_output=True)
    step('the wheel holds every module and data file, the commands and the extras')
    name, answer = install_and_predict(wheel)
    step(f'installed in an empty environment, it predicts {name}: {answer}')
    print(f'ready: git tag v{version} && git push origin v{version}')

if __name__ == '__main__': main()
