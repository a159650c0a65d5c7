// MATLAB files of level 5, as CPSC2018 distributes recordings: a structure `ECG` of sex, age and data (12, n) mV.
import {RecordError, makeRecord, stem} from './record.js';

const NUMBERS = { // type of a data element -> bytes, reader of a DataView
  1: [1, 'getInt8'], 2: [1, 'getUint8'], 3: [2, 'getInt16'], 4: [2, 'getUint16'], 5: [4, 'getInt32'],
  6: [4, 'getUint32'], 7: [4, 'getFloat32'], 9: [8, 'getFloat64'], 16: [1, 'getUint8'], 17: [2, 'getUint16']};
const MATRIX = 14, COMPRESSED = 15, STRUCT = 2;

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The data elements of some bytes: [type, bytes].
function elements(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), found = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const first = view.getUint32(at, true), small = first >>> 16;
    const type = small ? first & 0xffff : first, size = small || view.getUint32(at + 4, true);
    const from = at + (small ? 4 : 8);
    if (from + size > bytes.length) throw new Error('it is cut off');
    found.push([type, bytes.subarray(from, from + size)]);
    at = small ? at + 8 : from + (type === COMPRESSED ? size : Math.ceil(size / 8) * 8);
  }
  return found;
}

function numbers([type, bytes]) {
  const [size, get] = NUMBERS[type] ?? [];
  if (!size) throw new Error(`its data are of type ${type}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float64Array.from({length: bytes.length / size}, (_, i) => view[get](i * size, true));
}

const text = ([, bytes]) => new TextDecoder().decode(bytes).replace(/\0.*$/s, '');

// The fields of a structure's first element.
function fields(parts) {
  const [width] = numbers(parts[3]), names = parts[4][1];
  const split = Array.from({length: names.length / width},
    (_, i) => text([0, names.subarray(i * width, (i + 1) * width)]));
  return Object.fromEntries(split.map((name, i) => [name, matrix(parts[5 + i][1]).value]));
}

// A matrix: name, dimensions, and its numbers column by column, or the fields of a structure.
function matrix(bytes) {
  const parts = elements(bytes);
  if (parts.length < 4) return {name: '', value: {dims: [0, 0], data: []}};
  const dims = [...numbers(parts[1])], name = text(parts[2]);
  if (numbers(parts[0])[0] % 256 === STRUCT) return {name, value: fields(parts)};
  return {name, value: {dims, data: numbers(parts[3])}};
}

async function variables(bytes) {
  const found = {};
  for (const [type, content] of elements(bytes.subarray(128))) {
    const parts = type === COMPRESSED ? elements(await inflate(content)) : [[type, content]];
    for (const [kind, body] of parts) {
      if (kind !== MATRIX) continue;
      const {name, value} = matrix(body);
      found[name] = value;
    }
  }
  return found;
}

function rows(file, {dims, data}) {
  if (dims.length !== 2 || dims[0] !== 12) {
    throw new RecordError(file, `its signal has shape (${dims.join(', ')}), not (12, samples): give one row a lead`);
  }
  return Array.from({length: 12}, (_, k) => Float32Array.from({length: dims[1]}, (_, t) => data[12 * t + k]));
}

// The record of a .mat file without a header.
export async function readMatlab(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let found;
  try { found = await variables(bytes); }
  catch (e) { throw new RecordError(file.name, `is no readable MATLAB file (${e.message}): copy it again`); }
  if (found.ECG?.data) return makeRecord(file.name, rows(file.name, found.ECG.data), 500);
  if (found.feats?.data) {
    return makeRecord(file.name, rows(file.name, found.feats), found.curr_sample_rate?.data?.[0] ?? 400);
  }
  if (found.val) throw lonely(file.name);
  throw new RecordError(file.name, 'holds none of the variables ECG, feats: give a recording, not another MATLAB file');
}

export function lonely(file) {
  return new RecordError(file, `is the signal of a WFDB record without its header: give ${stem(file)}.hea with it`);
}
