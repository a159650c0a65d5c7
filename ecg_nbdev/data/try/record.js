// One recording: twelve leads in mV, NaN where there is no sample; what every reader gives and every page part takes.
export const LEADS = ['I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6'];
export const MILLIVOLTS = {mv: 1, uv: 1e-3, 'µv': 1e-3, 'μv': 1e-3, nv: 1e-6, v: 1e3}; // unit in lower case -> mV
const RATES = [40, 40_000]; // Hz
const LONGEST = 180; // s

// A file can't be used: one line that names it and the mend. `ask` says that a person may know what the file does not.
export class RecordError extends Error {
  constructor(file, reason, ask = false) {
    super(`${file}: ${reason}`);
    Object.assign(this, {file, reason, ask});
  }
}

const SPELLINGS = Object.fromEntries([...LEADS.map((lead) => [lead.toLowerCase(), lead]),
  ['mlii', 'II'], ['d1', 'I'], ['d2', 'II'], ['d3', 'III']]);

// The standard name of a lead, however it is spelt; undefined for another signal.
export function leadName(text) {
  const name = text.trim().toLowerCase().replace(/^lead/, '').replace(/^[ _-]+|[ _-]+$/g, '');
  return Object.hasOwn(SPELLINGS, name) ? SPELLINGS[name] : undefined;
}

// The same behind labels such as `ECG I` or `Lead V1 (Einthoven)`.
export function leadOf(label) {
  const text = label.trim().replace(/^(ecg|ekg|mdc_ecg_lead)[\s:_-]*/i, '');
  return text ? leadName(text) ?? leadName(text.split(/[\s(\[]/)[0]) : undefined;
}

export function stem(file) { return file.replace(/\.[^.]*$/, ''); }

const emptyRow = (n) => new Float32Array(n).fill(NaN);

// The twelve rows of [label, samples in mV]; of two equal leads the first one counts.
export function rowsOf(file, named) {
  const rows = new Map();
  for (const [label, samples] of named) {
    const lead = leadOf(label);
    if (lead && !rows.has(lead)) rows.set(lead, Float32Array.from(samples));
  }
  if (!rows.size) {
    const names = named.slice(0, 12).map(([label]) => label).join(', ') || 'nothing';
    throw new RecordError(file, `names none of the twelve leads (it holds ${names}): give an electrocardiogram`);
  }
  const lengths = new Set([...rows.values()].map((row) => row.length));
  if (lengths.size > 1) {
    throw new RecordError(file, 'its leads have different lengths: export it again, all leads at one rate');
  }
  return LEADS.map((lead) => rows.get(lead) ?? emptyRow([...lengths][0]));
}

const isEmpty = (row) => row.every(Number.isNaN);

// All six limb leads as so much of I and so much of II: Einthoven's and Goldberger's equations.
const LIMB = [[1, 0], [0, 1], [-1, 1], [-.5, -.5], [1, -.5], [-.5, 1]];

// I, II, III, aVR, aVL, aVF of I and II.
export function limbLeads(i, ii) { return LIMB.map(([a, b]) => Float64Array.from(i, (v, k) => a * v + b * ii[k])); }

// Computes the limb leads that two others determine; their names.
function addLimbLeads(signal) {
  const absent = signal.slice(0, 6).map(isEmpty), held = [0, 1, 2, 3, 4, 5].filter((k) => !absent[k]);
  if (held.length < 2 || held.length === 6) return [];
  const [p, q] = held, [[a, b], [c, d]] = [LIMB[p], LIMB[q]], det = a * d - b * c;
  LIMB.forEach(([e, f], k) => {
    const u = (e * d - f * c) / det, v = (f * a - e * b) / det;
    if (absent[k]) signal[k] = signal[p].map((x, t) => u * x + v * signal[q][t]);
  });
  return LEADS.filter((_, k) => absent[k]);
}

function isFlat(row) {
  const first = row.find((v) => !Number.isNaN(v));
  return row.every((v) => Number.isNaN(v) || v === first);
}

function check(file, signal, fs) {
  const n = signal[0].length;
  if (!n) throw new RecordError(file, 'holds no sample: copy it again');
  if (!(fs >= RATES[0] && fs <= RATES[1])) {
    throw new RecordError(file, `gives a sampling rate of ${fs} Hz, not ${RATES.join(' to ')}: give the true one`);
  }
  if (n / fs > LONGEST) {
    const told = `lasts ${Math.round(n / fs)} s, this page takes up to ${LONGEST} s`;
    throw new RecordError(file, `${told}: cut it, or answer it with ecg-predict`);
  }
  if (signal.every(isEmpty)) throw new RecordError(file, 'has no sample in any lead: give an electrocardiogram');
  if (signal.every(isFlat)) {
    throw new RecordError(file, 'is flat in every lead, there is no heartbeat in it: leave it out');
  }
}

// A checked record of twelve rows (Float32Array); `notes` are what a reader had to assume.
export function makeRecord(file, signal, fs, about = {}) {
  for (const row of signal) row.forEach((v, t) => { if (!Number.isFinite(v)) row[t] = NaN; });
  const computed = addLimbLeads(signal);
  check(file, signal, fs);
  const missing = LEADS.filter((_, k) => isEmpty(signal[k]));
  return {file, id: stem(file), signal, fs, n: signal[0].length, computed, missing, notes: [], ...about};
}
