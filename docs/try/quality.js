// What is wrong with a recording, in the words of ecg_nbdev.quality; its limits come with the model.
import {LEADS, limbLeads} from './record.js';
import {Fourier, bridge, median, quantile, ranked} from './signal.js';

const sumOf = (values) => values.reduce((a, v) => a + v, 0);
const meanOf = (values) => sumOf(values) / values.length;
const listLeads = (leads) => leads.length === LEADS.length ? 'all leads' : leads.join(', ');

function deviation(row) {
  const mean = meanOf(row);
  return Math.sqrt(meanOf(row.map((v) => (v - mean) ** 2)));
}

// What a function makes of the rows, two at a time.
function inPairs(rows, of) { return rows.flatMap((row, k) => k % 2 ? [] : of(row, rows[k + 1])); }

class Spectrum {
  constructor(x, fs) {
    this.n = x[0].length;
    this.fs = fs;
    this.fourier = new Fourier(this.n);
    const fade = Float64Array.from({length: this.n}, (_, i) =>
      Math.sin(Math.PI / 2 * Math.min(1, Math.min(i, this.n - 1 - i) / (.25 * fs))) ** 2);
    const faded = x.map((row) => {
      const mean = meanOf(row);
      return row.map((v, i) => (v - mean) * fade[i]);
    });
    this.values = inPairs(faded, (a, b) => this.fourier.forward(a, b));
    this.f = Float64Array.from(this.values[0].re, (_, k) => k * fs / this.n);
  }

  // Root mean square of each lead between two frequencies, mV.
  rms(low, high) {
    return this.values.map(({re, im}) => {
      let sum = 0;
      this.f.forEach((f, k) => { if (f >= low && f < high) sum += re[k] ** 2 + im[k] ** 2; });
      return Math.sqrt(2 * sum) / this.n;
    });
  }

  // The leads between two frequencies, with edges an eighth of an octave wide, mV.
  band(low, high) {
    const clip = (v) => Math.min(1, Math.max(0, v));
    return this.weighted(this.f.map((f) => {
      const octave = Math.log2(Math.max(f, 1e-9));
      return clip(8 * (octave - Math.log2(low)) + .5) * clip(8 * (Math.log2(high) - octave) + .5);
    }));
  }

  weighted(weight) { return inPairs(this.values, (a, b) => this.fourier.inverse(a, b, weight)); }

  // Robust standard deviation above 40 Hz, without the mains, mV.
  noise() {
    if (this.fs < 120) return this.values.map(() => 0);
    const high = (f) => f > 40 && Math.abs(f - 50) > 1.5 && Math.abs(f - 60) > 1.5;
    const rest = this.weighted(this.f.map((f) => Number(high(f))));
    return rest.map((row) => 1.4826 * ranked(row.filter((_, i) => i % 3 === 0).map(Math.abs), .5));
  }
}

// Samples of the longest stretch without a change.
function longestStill(row) {
  let longest = 0, now = 0;
  for (let i = 1; i < row.length; i++) {
    now = row[i] === row[i - 1] ? now + 1 : 0;
    if (now > longest) longest = now;
  }
  return longest;
}

// Share of the samples on the highest or lowest value, far out, in runs of three or more.
function atEnds(row, centre) {
  let low = Infinity, high = -Infinity, count = 0;
  for (const v of row) { low = Math.min(low, v); high = Math.max(high, v); }
  const out = Array.from(row, (v) => (v === low || v === high) && Math.abs(v - centre) > .3);
  for (let i = 1; i < out.length - 1; i++) count += out[i - 1] && out[i] && out[i + 1];
  return row.length > 2 ? count / (row.length - 2) : 0;
}

// Mean energy of the leads between 8 and 25 Hz over 0.1 s, each lead as loud as the others.
function energyOf(band, fs) {
  const n = band[0].length, width = Math.max(1, Math.round(.1 * fs)), mean = new Float64Array(n);
  const heard = band.map((row) => [row, deviation(row)]).filter(([, loud]) => loud > 1e-5);
  for (const [row, loud] of heard) row.forEach((v, i) => { mean[i] += (v / loud) ** 2 / heard.length; });
  const ahead = (width - 1) >> 1;
  let sum = 0;
  for (let i = 0; i < Math.min(ahead, n); i++) sum += mean[i];
  return mean.map((_, i) => {
    sum += (mean[i + ahead] ?? 0) - (mean[i + ahead - width] ?? 0);
    return sum / width;
  });
}

// How often the energy rises above a fifth of its peaks, at most five times a second.
function countBeats(energy, fs) {
  const limit = .2 * quantile(energy, .98);
  let count = 0, last = -fs;
  for (let i = 0; i + 1 < energy.length; i++) {
    if (!(energy[i] <= limit && energy[i + 1] > limit)) continue;
    if (i - last > .2 * fs) count++;
    last = i;
  }
  return count;
}

class Measured {
  constructor(record, limits) {
    const {signal, fs, n} = record;
    Object.assign(this, {record, limits, fs, n});
    this.there = signal.map((row) => !row.every(Number.isNaN));
    this.seconds = sumOf(Array.from({length: n}, (_, t) => Number(signal.some((row) => !Number.isNaN(row[t]))))) / fs;
    this.x = signal.map(bridge);
    this.still = signal.map((row) => (longestStill(row) + 1) / fs); // NaN equals nothing
    this.centre = this.x.map((row) => ranked(row.filter((_, i) => i % 4 === 0), .5));
    this.amplitude = this.x.map((row, k) =>
      ranked(row.filter((_, i) => i % 2 === 0).map((v) => Math.abs(v - this.centre[k])), .999));
    this.spectrum = new Spectrum(this.x, fs);
  }

  leads(on) { return LEADS.filter((_, k) => on[k] && this.there[k]); }

  // A finding for the leads whose value is beyond the limit.
  perLead(name, values, words) {
    const leads = this.leads(values.map((v) => v > this.limits[name]));
    if (!leads.length) return [];
    const worst = Math.max(...leads.map((l) => values[LEADS.indexOf(l)]));
    return [{name, words: words(listLeads(leads), worst)}];
  }
}

function length(m) {
  if (m.seconds >= m.limits.short) return [];
  if (m.seconds >= m.limits['too short']) {
    return [{name: 'short', words: `only ${m.seconds.toFixed(1)} s of signal: a few beats`}];
  }
  const words = `${m.seconds.toFixed(2)} s of signal are too short for an answer: give at least 1 s`;
  return [{name: 'too short', refuse: true, words}];
}

function amplitude(m) {
  const reach = m.amplitude.map((v, k) => m.there[k] ? v : 0), largest = Math.max(...reach);
  if (largest > m.limits.huge) {
    const words = `reaches ${largest.toFixed(0)} mV, no heart does: are these microvolts, not millivolts?`;
    return [{name: 'huge', refuse: true, words}];
  }
  if (largest < m.limits.tiny) {
    const words = `stays within ${(1000 * largest).toFixed(1)} µV: flat, or volts taken for millivolts?`;
    return [{name: 'tiny', refuse: true, words}];
  }
  if (largest < m.limits.small) {
    return [{name: 'small', words: `reaches ${largest.toFixed(2)} mV only: check its unit`}];
  }
  return m.perLead('large', reach, (leads, v) => `up to ${v.toFixed(1)} mV in ${leads}: check the unit or the gain`);
}

function noQrs(m) {
  const band = m.spectrum.band(8, 25), energy = energyOf(band, m.fs);
  const peaked = meanOf(energy) / Math.max(median(energy), 1e-9);
  const share = Math.max(...band.map(deviation)) / Math.max(...m.spectrum.rms(.5, Infinity), 1e-9);
  const perMinute = 60 * countBeats(energy, m.fs) / m.seconds;
  if (peaked >= m.limits['no QRS'] && share >= .05 && (perMinute >= 20 || m.seconds < 5)) return [];
  return [{name: 'no QRS', refuse: true, words: 'no heartbeat (QRS complex) can be found in it'}];
}

function missing({record}) {
  const {missing: gone, computed: made} = record, found = [];
  if (gone.length) {
    const words = `${listLeads(gone)} absent: the answer rests on the other ${LEADS.length - gone.length} leads`;
    found.push({name: 'missing', words});
  }
  if (made.length) {
    found.push({name: 'computed', words: `${listLeads(made)} absent, computed from the other limb leads`});
  }
  return found;
}

function flat(m) {
  const limit = Math.min(m.limits.flat, .5 * m.n / m.fs);
  return [['flat for', true], ['off, or at the end of the range, for', false]].flatMap(([how, atZero]) => {
    const leads = m.leads(m.still.map((s, k) => s >= limit && (Math.abs(m.centre[k]) < .5) === atZero));
    const longest = Math.max(...leads.map((lead) => m.still[LEADS.indexOf(lead)]));
    return leads.length ? [{name: 'flat', words: `${listLeads(leads)} ${how} ${longest.toFixed(1)} s`}] : [];
  });
}

function clipped(m) {
  const ends = m.x.map((row, k) => m.still[k] < m.limits.flat ? atEnds(row, m.centre[k]) : 0);
  return m.perLead('clipped', ends, (leads) => `${leads} clipped: the highest or lowest values are cut off`);
}

function noisy(m) {
  return m.perLead('noise', m.spectrum.noise(), (leads, v) => `${leads} noisy: ${v.toFixed(2)} mV above 40 Hz`);
}

function baseline(m) {
  return m.perLead('baseline', m.spectrum.rms(1e-9, .5),
    (leads, v) => `${leads} with a wandering baseline of ${v.toFixed(1)} mV`);
}

function powerline(m) {
  const [at50, at60] = [50, 60].map((mains) => m.spectrum.rms(mains - .5, mains + .5));
  return m.perLead('powerline', at50.map((v, k) => Math.max(v, at60[k])),
    (leads, v) => `${leads} with mains hum of ${v.toFixed(2)} mV`);
}

function einthoven(m) {
  if (!m.there[0] || !m.there[1]) return [];
  const made = limbLeads(m.x[0], m.x[1]);
  const distance = LEADS.map((_, k) => k < 6
    ? ranked(m.x[k].map((v, i) => Math.abs(v - made[k][i])).filter((_, i) => i % 4 === 0), .5) : 0);
  return m.perLead('limb leads', distance,
    (leads, v) => `${leads} do not follow from I and II (median ${v.toFixed(2)} mV off): are leads swapped?`);
}

function correlation(a, b) {
  const dot = (p, q) => p.reduce((sum, v, i) => sum + v * q[i], 0), size = Math.sqrt(dot(a, a) * dot(b, b));
  return size > 1e-9 ? dot(a, b) / size : NaN;
}

function reversal(m) {
  const left = [11, 10].find((k) => m.there[k]);
  if (left === undefined || !m.there[0] || !m.there[1]) return [];
  const x = m.spectrum.band(1, 30), limb = limbLeads(x[0], x[1]);
  const seen = (lead) => correlation(limb[LEADS.indexOf(lead)], x[left]);
  for (const [name, lead, which] of [
    ['arms', 'aVL', 'left and right arm'], ['arm and leg', 'aVF', 'right arm and left leg']]) {
    if (!(seen(lead) - seen('aVR') < m.limits[name])) continue;
    const words = `${which} electrodes may be reversed (or the heart lies on the right): look at the patient`;
    return [{name, words}];
  }
  return [];
}

// What is wrong with a recording, the gravest first; where a finding says `refuse`, nothing can be read.
export function checkQuality(record, limits) {
  const m = new Measured(record, limits), found = [];
  for (const check of [length, amplitude, noQrs]) {
    found.push(...check(m));
    if (found.at(-1)?.refuse) return found;
  }
  return [missing, flat, clipped, noisy, baseline, powerline, einthoven, reversal]
    .reduce((all, check) => all.concat(check(m)), found);
}
