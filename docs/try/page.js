// The page: files in, paper, answer and warnings out. Whatever comes from a file is text, never markup.
import {Model, decide} from './answer.js';
import {readFiles} from './formats.js';
import {drawPaper} from './paper.js';
import {checkQuality} from './quality.js';
import {RecordError} from './record.js';

const $ = (id) => document.getElementById(id);
const NO_WINDOW = 'no window of it holds enough samples: most of it is missing';
const SAMPLE = 'A5215';
const COUNTS = {9: 'nine'};
let model, shown = null, given = [], turn = 0;

function node(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The model, loaded once and only when a recording is there.
function loadModel() { return model ??= Model.load('.').catch((e) => { model = undefined; throw e; }); }

function say(text, kind = '') {
  $('status').textContent = text;
  $('status').className = kind;
}

// ---- the answer

function percent(p) { return p.toFixed(p < .0995 ? 3 : 2); }

// The diagnoses in words, or the one that is nearest to its threshold.
function showAnswer() {
  const {prob, about, values} = shown, {labels, nearest} = decide(prob, values, about);
  const title = (k) => about.titles[about.classes[k]] ?? about.classes[k];
  const line = (k) => {
    const item = node('li');
    item.append(node('strong', title(k)), node('span', ` ${percent(prob[k])}, threshold ${percent(values[k])}`));
    return item;
  };
  $('diagnoses').replaceChildren(...(labels.length ? labels : [nearest]).map(line));
  $('none').hidden = labels.length > 0;
  $('none').textContent = `None of the ${COUNTS[prob.length] ?? prob.length} reaches its threshold; the nearest is`;
  document.querySelectorAll('#classes li').forEach((item, k) => {
    item.classList.toggle('reached', labels.includes(k));
    item.style.setProperty('--threshold', values[k]);
    item.querySelector('output').textContent = values[k].toFixed(3);
  });
  $('reset').hidden = values.every((v, k) => v === about.thresholds.values[k]);
}

// A row per class: name, probability as a bar, threshold as a slider on it.
function showClasses() {
  const {prob, about} = shown;
  $('classes').replaceChildren(...about.classes.map((name, k) => {
    const item = node('li', undefined, {'data-class': name, 'data-probability': prob[k]}), label = node('label');
    item.style.setProperty('--probability', prob[k]);
    label.append(node('span', about.titles[name] ?? name, {class: 'name'}), node('abbr', name));
    const slider = node('input', undefined, {type: 'range', min: 0, max: 1, step: .001});
    slider.value = shown.values[k];
    slider.setAttribute('aria-label', `threshold of ${about.titles[name] ?? name}`);
    slider.addEventListener('input', () => {
      shown.values[k] = Number(slider.value);
      showAnswer();
    });
    const bar = node('div', undefined, {class: 'bar'});
    bar.append(node('i'), slider);
    item.append(label, node('b', percent(prob[k])), bar, node('output'));
    return item;
  }));
}

// ---- what was read

function showFindings(record, found) {
  const notes = record.notes.map((note) => node('li', `${record.file} ${note}`));
  const warnings = found.filter((f) => !f.refuse).map((f) => node('li', f.words));
  $('warnings').replaceChildren(...warnings, ...notes);
  $('warned').hidden = !(warnings.length + notes.length);
}

function drawFrom(start) {
  $('paper').replaceChildren(drawPaper(shown.record, start));
  const end = Math.min(start + 10, shown.record.n / shown.record.fs);
  $('from').textContent = `${start.toFixed(1)} – ${end.toFixed(1)} s`;
}

function showRecord(record) {
  const seconds = record.n / record.fs, rate = Number(record.fs.toFixed(2));
  $('name').textContent = record.id;
  $('facts').textContent = `${seconds.toFixed(1)} s at ${rate} Hz`;
  $('source').hidden = !record.sample;
  $('time').max = Math.max(0, seconds - 10);
  $('time').value = 0;
  $('moments').hidden = seconds <= 10.05;
  drawFrom(0);
}

// One line on a file that can't be used; what was shown before goes, so that nothing answers for it.
function showError(error) {
  shown = null;
  $('result').hidden = true;
  const known = error instanceof RecordError, file = given[0]?.name ?? 'the page';
  say(known ? error.message : `${file}: can't be answered (${error.message}): export it again`, 'wrong');
  $('told').hidden = !(known && error.ask);
}

// ---- from files to an answer

async function answer(record, about) {
  const found = checkQuality(record, about.limits), refusal = found.find((f) => f.refuse)?.words;
  const prob = refusal ? null : await (await loadModel()).predict(record);
  const values = [...about.thresholds.values];
  return {record, about, found, prob, values, refused: refusal ?? (prob ? '' : NO_WINDOW)};
}

function show(result) {
  shown = result;
  showRecord(result.record);
  showFindings(result.record, result.found);
  $('answer').hidden = Boolean(result.refused);
  $('refused').hidden = !result.refused;
  $('reason').textContent = result.refused;
  if (result.refused) $('classes').replaceChildren();
  else {
    showClasses();
    showAnswer();
  }
  $('result').hidden = false;
  $('result').dataset.record = result.record.id;
  $('told').hidden = !result.record.table;
  say('');
}

// Read, look, answer; only the last files that were given are shown.
async function take(files, told = {}, sample = false) {
  const mine = ++turn;
  given = files;
  delete $('result').dataset.record;
  say('Reading …', 'busy');
  try {
    const record = await readFiles(files, told);
    record.sample = sample;
    say('Loading the model …', 'busy');
    const result = await answer(record, (await loadModel()).about);
    if (mine === turn) show(result);
  } catch (error) {
    if (mine === turn) showError(error);
  }
}

async function takeSample() {
  try {
    const files = await Promise.all(['hea', 'mat'].map(async (ending) => {
      const got = await fetch(`./samples/${SAMPLE}.${ending}`);
      if (!got.ok) throw new Error(`samples/${SAMPLE}.${ending} is not there`);
      return new File([await got.blob()], `${SAMPLE}.${ending}`);
    }));
    await take(files, {}, true);
  } catch (error) { showError(error); }
}

// ---- hands

function listen() {
  const drop = $('drop'), stop = (event) => { event.preventDefault(); };
  $('files').addEventListener('change', () => {
    const files = [...$('files').files];
    $('files').value = ''; // so that the same file can be given again
    if (files.length) take(files);
  });
  for (const name of ['dragover', 'dragenter']) {
    addEventListener(name, (event) => { stop(event); drop.classList.add('over'); });
  }
  addEventListener('dragleave', (event) => { if (!event.relatedTarget) drop.classList.remove('over'); });
  addEventListener('drop', (event) => {
    stop(event);
    drop.classList.remove('over');
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
  $('sample').addEventListener('click', takeSample);
  $('time').addEventListener('input', () => drawFrom(Number($('time').value)));
  $('reset').addEventListener('click', () => {
    shown.values = [...shown.about.thresholds.values];
    showClasses();
    showAnswer();
  });
  $('told').addEventListener('submit', (event) => {
    stop(event);
    const leads = $('leads').value.split(',').map((name) => name.trim()).filter(Boolean);
    take(given, {rate: Number($('rate').value) || undefined, unit: $('unit').value || undefined, leads});
  });
  $('scheme').addEventListener('click', () => {
    const root = document.documentElement, dark = !root.classList.contains('quarto-dark');
    root.classList.toggle('quarto-dark', dark);
    if (dark) root.dataset.scheme = 'alternate'; else delete root.dataset.scheme;
    try { localStorage.setItem('smalldocs-scheme', dark ? 'alternate' : 'default'); } catch { /* kept nowhere */ }
  });
}

listen();
document.documentElement.dataset.ready = 'yes';
