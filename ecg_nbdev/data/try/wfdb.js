// WFDB: a header of text, and signal files in the formats 16 and 212.
import {LEADS, MILLIVOLTS, RecordError, leadName, makeRecord} from './record.js';

const NUMBER = String.raw`[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?`, WHOLE = String.raw`-?\d{1,12}`;

// A pattern of fields of which any number may be missing from the right.
function optional(first, ...rest) { return first ? `(?:${first}${optional(...rest)})?` : ''; }

const RECORD = new RegExp(String.raw`^([^\s/]+)(/\d+)?\s+(\d+)`
  + optional(String.raw`\s+(${NUMBER})(?:[/(]\S*)?`, String.raw`\s+(\d+)(?:\s.*)?`) + String.raw`\s*$`);
const STORAGE = String.raw`^(\S+)\s+(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?`;
const SCALING = String.raw`\s+(${NUMBER})(?:\((${WHOLE})\))?(?:/(\S+))?`;
const NUMBER_OF = String.raw`\s+(${WHOLE})`, UNUSED = String.raw`\s+${WHOLE}`;
const SIGNAL = new RegExp(STORAGE
  + optional(SCALING, UNUSED, NUMBER_OF, NUMBER_OF, NUMBER_OF, UNUSED, String.raw`\s+(.*\S)`) + String.raw`\s*$`);

function parseSignal(file, line) {
  const match = SIGNAL.exec(line);
  if (!match) throw new RecordError(file, `can't read its signal line "${line.slice(0, 60)}": restore the header`);
  const [, name, format, frame, skew, offset, gain, baseline, units, zero, , checksum, label] = match;
  const scale = MILLIVOLTS[(units ?? 'mV').toLowerCase()];
  if (!scale) throw new RecordError(file, `its signal is in ${units}, not volts: give a signal in mV or uV`);
  const plain = (frame ?? '1') === '1' && (skew ?? '0') === '0';
  return {file: name, format, plain, offset: Number(offset ?? 0), gain: (Number(gain ?? 0) || 200) / scale,
    baseline: Number(baseline ?? zero ?? 0), checksum: checksum === undefined ? null : Number(checksum),
    lead: leadName(label ?? '')};
}

// What a header says: rate, number of samples, signals.
export function parseHeader(file, text) {
  const lines = text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line && !line.startsWith('#'));
  const record = RECORD.exec(lines[0] ?? '');
  if (!record) {
    throw new RecordError(file, 'is not a WFDB header: its first line should read "name signals rate samples"');
  }
  const [, , segments, count, fs, n] = record;
  if (segments) throw new RecordError(file, 'is a record of several segments: answer it with ecg-predict');
  if (!Number(count)) throw new RecordError(file, 'describes no signal: give a recording, not an annotation');
  const signals = lines.slice(1, 1 + Number(count)).map((line) => parseSignal(file, line));
  if (signals.length < Number(count)) {
    const told = `describes ${signals.length} of its ${count} signals`;
    throw new RecordError(file, `${told}: the header is cut off, copy it again`);
  }
  return {fs: Number(fs ?? 250), n: Number(n ?? 0), signals};
}

// The samples of `count` signals, one after the other in time, as numbers of 16 bits.
function decode16(bytes, offset, held) {
  const view = new DataView(bytes, offset);
  return Int16Array.from({length: held}, (_, i) => view.getInt16(2 * i, true));
}

// The same of 12 bits: three bytes hold two samples.
function decode212(bytes, offset, held) {
  const b = new Uint8Array(bytes, offset);
  return Int16Array.from({length: held}, (_, i) => {
    const at = 3 * (i >> 1), raw = i % 2 ? b[at + 2] | (b[at + 1] & 0xf0) << 4 : b[at] | (b[at + 1] & 0x0f) << 8;
    return raw << 20 >> 20;
  });
}

const FORMATS = { // format -> decoder, bytes per sample, the number that stands for no sample
  16: [decode16, 2, -32768], 212: [decode212, 1.5, -2048]};

function checkSum(file, name, row, checksum) {
  let sum = 0;
  for (const v of row) sum += v;
  if ((sum - checksum) % 65536) {
    const why = `the checksum of ${name} differs`;
    throw new RecordError(file, `signal and header do not belong together (${why}): copy both again`);
  }
}

// The rows of one signal file: one typed array of numbers per signal.
function readSignals(file, name, members, bytes, n) {
  const {format, offset} = members[0];
  if (!FORMATS[format] || members.some((s) => s.format !== format || !s.plain)) {
    throw new RecordError(file, `its storage format ${format} is not read here: convert it to format 16`);
  }
  const [decode, size] = FORMATS[format], k = members.length;
  const held = Math.floor(Math.max(bytes.byteLength - offset, 0) / (size * k));
  if (held < (n || 1)) {
    throw new RecordError(name, `is cut off: it holds ${held} of ${n || '?'} samples per lead, copy it again`);
  }
  const length = n || held, all = decode(bytes, offset, length * k);
  const rows = members.map((_, i) => Int16Array.from({length}, (_, t) => all[t * k + i]));
  if (members.some((s) => s.checksum)) {
    rows.forEach((row, i) => { if (members[i].checksum !== null) checkSum(file, name, row, members[i].checksum); });
  }
  return rows;
}

function toMillivolts(row, signal) {
  const none = FORMATS[signal.format][2], scale = Math.fround(1 / signal.gain);
  return Float32Array.from(row, (v) => v === none ? NaN : (v - signal.baseline) * scale);
}

// The record of a header; `find(name)` gives a file that was dropped with it.
export async function readWfdb(header, find) {
  const {fs, n, signals} = parseHeader(header.name, await header.text()), rows = new Map();
  for (const name of new Set(signals.map((s) => s.file))) {
    const found = find(name), members = signals.filter((s) => s.file === name);
    if (!found) {
      throw new RecordError(header.name, `its signal file ${name} is missing: give both files together`);
    }
    const decoded = readSignals(header.name, name, members, await found.arrayBuffer(), n);
    members.forEach((s, i) => { if (s.lead && !rows.has(s.lead)) rows.set(s.lead, toMillivolts(decoded[i], s)); });
  }
  const length = Math.max(0, ...[...rows.values()].map((row) => row.length));
  const signal = LEADS.map((lead) => rows.get(lead) ?? new Float32Array(length).fill(NaN));
  return makeRecord(header.name, signal, fs);
}
