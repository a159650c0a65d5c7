// Tables of numbers as text: CSV, TSV, or columns with blanks between.
import {LEADS, MILLIVOLTS, RecordError, leadOf, makeRecord, rowsOf} from './record.js';
import {median, quantile} from './signal.js';

const cells = (line, mark) => (mark ? line.split(mark) : line.trim().split(/\s+/))
  .map((cell) => cell.trim().replace(/^"+|"+$/g, ''));

// A cell's number, NaN where it is empty, null where it is a word.
function numberOrNull(cell, decimal) {
  if (!cell || /^[+-]?nan$/i.test(cell)) return NaN;
  const value = Number(decimal === ',' ? cell.replace(',', '.') : cell);
  return Number.isNaN(value) ? null : value;
}

function separator(lines) {
  const sample = lines[Math.floor(lines.length / 2)], mark = ['\t', ';', ','].find((m) => sample.includes(m)) ?? null;
  return [mark, mark !== ',' && sample.includes(',') && !sample.includes('.') ? ',' : '.'];
}

const counts = (row) => row.every((v, i) => v === i) || row.every((v, i) => v === i + 1);

// The lines before the numbers, in cells, and the rows of numbers.
function splitTable(file, lines) {
  const [mark, decimal] = separator(lines);
  const numbers = (line) => cells(line, mark).map((cell) => numberOrNull(cell, decimal));
  let start = lines.findIndex((line) => { const row = numbers(line); return row.length > 1 && !row.includes(null); });
  if (start < 0) throw new RecordError(file, 'holds no row of numbers: give a table with a column per lead');
  if (counts(numbers(lines[start]))) start++; // names
  const rows = lines.slice(start).map(numbers);
  const bad = rows.findIndex((row) => row.length !== rows[0].length || row.includes(null));
  if (bad >= 0 || !rows.length) {
    const line = start + bad + 1;
    throw new RecordError(file, `its line ${line} is no row like the others: the table is cut off or mixed`);
  }
  return [lines.slice(0, start).map((line) => cells(line, mark)), rows];
}

const RATE = /(?:\bfs\b|\brate\b|sampl\w*[ _]?(?:rate|freq\w*)|frequency)[^\d\n]{0,20}(\d+(?:\.\d+)?)/i;
const HERTZ = /(\d+(?:\.\d+)?)\s*Hz\b/i, UNIT = /\bunits?\W{1,4}([munµμ]?v)\b/i;
const TIME = /^(time|t|sec(onds)?|ms|milliseconds)\b/i, COUNT = /^(sample|index|n|no|nr|#|unnamed.*|)\W*(\d*)$/i;

function rateOf(file, name, times) {
  const steps = times.slice(1).map((t, i) => t - times[i]);
  let step = steps.length ? median(steps) : 0;
  if (!(step > 0) || steps.some((s) => Math.abs(s - step) > .6 * step)) {
    throw new RecordError(file, 'its times are not evenly spaced: give a table with one sample in each row');
  }
  step = (times.at(-1) - times[0]) / steps.length;
  const milli = /ms|milli/i.test(name) || (step >= .5 && !name.toLowerCase().includes('sec'));
  const rate = (milli ? 1000 : 1) / step;
  return Math.abs(rate - Math.round(rate)) < .01 * rate && rate > 20 ? Math.round(rate) : rate;
}

// Whether numbers rise in even steps, as a counter or a clock.
function isEven(column) {
  const first = column[1] - column[0], steps = column.slice(1).map((v, i) => v - column[i]);
  if (steps.length < 2 || !(first > 0)) return false;
  return steps.every((s) => Math.abs(s - first) <= .6 * first);
}

// Names and columns of samples, and the rate where one column holds times; a column that counts is left out.
function withoutClock(file, names, columns) {
  const keep = [];
  let rate;
  names.forEach((name, i) => {
    const counter = i === 0 && !leadOf(name) && COUNT.test(name) && isEven(columns[i]);
    if (leadOf(name)) keep.push(i);
    else if (TIME.test(name)) rate = rateOf(file, name, columns[i]);
    else if (!counter) keep.push(i);
    else if (!name && columns[i][1] - columns[i][0] !== 1) rate = rateOf(file, name, columns[i]);
  });
  return [keep.map((i) => names[i]), keep.map((i) => columns[i]), rate];
}

const USUAL = {12: LEADS, 8: ['I', 'II', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6']};

// The names of `n` columns: as told, as the file names them, or the usual order, which is said.
function namesOf(file, names, n, told, notes) {
  if (told.leads?.length) {
    if (told.leads.length === n) return told.leads;
    throw new RecordError(file, `has ${n} columns and ${told.leads.length} leads were given: name every column`, true);
  }
  if (names.some(leadOf)) return names;
  if (!USUAL[n]) {
    throw new RecordError(file, `has ${n} columns without names of leads: name them, in their order`, true);
  }
  notes.push(`names no leads, its ${n} columns are taken for ${USUAL[n].join(', ')}`);
  return USUAL[n];
}

const RANGES = [['V', 1e-4, 2e-2], ['mV', .1, 20], ['uV', 100, 20_000]]; // amplitudes in that unit

// What turns the samples into mV: by their unit, or by their amplitude, which is said.
function unitFactor(file, columns, unit, notes) {
  if (unit) {
    const factor = MILLIVOLTS[unit.toLowerCase()];
    if (factor) return factor;
    throw new RecordError(file, `its unit is ${unit}, not volts: give a signal in mV or uV`, true);
  }
  const swings = columns.map((column) => {
    const held = column.filter((v) => !Number.isNaN(v)), centre = median(held);
    return quantile(held.map((v) => Math.abs(v - centre)), .999);
  });
  const reach = median(swings.filter((v) => !Number.isNaN(v))), said = Number(reach.toPrecision(3));
  const fits = RANGES.find(([, low, high]) => low <= reach && reach <= high);
  if (!fits) {
    throw new RecordError(file, `names no unit, and its amplitude of ${said} fits none: give its unit`, true);
  }
  notes.push(`names no unit, its amplitude of ${said} is taken for ${fits[0]}`);
  return MILLIVOLTS[fits[0].toLowerCase()];
}

const IN_NAME = /[\s_(\[]+([munµμ]?v)\W*$/i;

// A record of columns of numbers; `told` (rate in Hz, unit, leads) is what a person knows and the file does not say.
function recordOfColumns(file, names, columns, told, rate, unit) {
  const notes = [];
  let timed;
  if (told.leads?.length !== names.length) [names, columns, timed] = withoutClock(file, names, columns);
  const leads = namesOf(file, names, columns.length, told, notes), fs = told.rate || timed || rate;
  if (!fs) throw new RecordError(file, 'names no sampling rate: give it in Hz below, or add a column of times', true);
  const known = leads.map((_, i) => i).filter((i) => leadOf(leads[i]));
  const units = new Set(known.map((i) => IN_NAME.exec(leads[i])?.[1]).filter(Boolean));
  const named = units.size === 1 ? [...units][0] : unit;
  const factor = unitFactor(file, known.map((i) => columns[i]), told.unit || named, notes);
  const signal = rowsOf(file, known.map((i) => [leads[i].replace(IN_NAME, ''), columns[i].map((v) => v * factor)]));
  return makeRecord(file, signal, fs, {notes, table: true});
}

function decode(bytes) {
  const marks = [[[0xff, 0xfe], 'utf-16le'], [[0xfe, 0xff], 'utf-16be']];
  const marked = marks.find(([mark]) => mark.every((b, i) => bytes[i] === b));
  return new TextDecoder(marked ? marked[1] : 'utf-8').decode(bytes);
}

// The record of a table of numbers.
export async function readTable(file, told = {}) {
  const lines = decode(new Uint8Array(await file.arrayBuffer())).split(/\r\n|\r|\n/).filter((line) => line.trim());
  if (!lines.length) throw new RecordError(file.name, 'is empty: copy it again');
  const [before, rows] = splitTable(file.name, lines), width = rows[0].length;
  const columns = rows.length > width ? Array.from({length: width}, (_, i) => rows.map((row) => row[i])) : rows;
  const last = before.at(-1), fit = last?.length === columns.length && columns !== rows;
  const names = (fit ? last : columns.map(() => '')).map((name) => name.replace(/^[# ]+/, ''));
  const text = before.map((line) => line.join(' ')).join('\n');
  const rate = RATE.exec(text) ?? HERTZ.exec(text);
  return recordOfColumns(file.name, names, columns, told, rate && Number(rate[1]), UNIT.exec(text)?.[1]);
}
