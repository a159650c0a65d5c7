// EDF and EDF+: a header in columns of text, then blocks of 16-bit numbers.
import {MILLIVOLTS, RecordError, leadOf, makeRecord, rowsOf} from './record.js';

const WIDTHS = { // fields of each signal, in the order of the file
  label: 16, transducer: 80, unit: 8, low: 8, high: 8, digitalLow: 8, digitalHigh: 8,
  filter: 80, samples: 8, reserved: 32};

function parseHeader(file, bytes) {
  const text = new TextDecoder('latin1').decode(bytes.subarray(0, 256 * 257));
  const at = (from, width) => text.slice(from, from + width).trim();
  const size = Number(at(184, 8)), count = Number(at(252, 4)), signals = Array.from({length: count}, () => ({}));
  if (!count || bytes.length < size || size !== 256 * (count + 1)) {
    throw new RecordError(file, 'is EDF and its header is damaged: copy it again');
  }
  let from = 256;
  for (const [name, width] of Object.entries(WIDTHS)) {
    signals.forEach((s, i) => { s[name] = at(from + i * width, width); });
    from += count * width;
  }
  return {size, kind: at(192, 44), blocks: Number(at(236, 8)), seconds: Number(at(244, 8)), signals};
}

// Where each signal begins within a block, in samples, and how many samples a block has.
function layOut(signals) {
  let total = 0;
  for (const s of signals) {
    s.start = total;
    total += s.count = Number(s.samples);
  }
  return total;
}

function samplesOf(view, s, blocks, perBlock, size) {
  const scale = (s.high - s.low) / (s.digitalHigh - s.digitalLow), unit = MILLIVOLTS[s.unit.toLowerCase()];
  const out = new Float32Array(blocks * s.count);
  for (let b = 0; b < blocks; b++) {
    for (let i = 0; i < s.count; i++) {
      const raw = view.getInt16(size + 2 * (b * perBlock + s.start + i), true);
      out[b * s.count + i] = ((raw - s.digitalLow) * scale + Number(s.low)) * unit;
    }
  }
  return out;
}

// The record of an EDF file.
export async function readEdf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer()), head = parseHeader(file.name, bytes);
  if (head.kind.startsWith('EDF+D')) {
    throw new RecordError(file.name, 'is EDF+ with interruptions: export it without them');
  }
  const perBlock = layOut(head.signals), held = Math.floor((bytes.length - head.size) / (2 * perBlock));
  const blocks = head.blocks < 0 ? held : head.blocks;
  if (!(held >= blocks)) {
    throw new RecordError(file.name, `is EDF and cut off: it holds ${held} of ${blocks} blocks, copy it again`);
  }
  const leads = head.signals.filter((s) => leadOf(s.label));
  const odd = leads.find((s) => !MILLIVOLTS[s.unit.toLowerCase()]);
  if (odd) throw new RecordError(file.name, `gives ${odd.label} without a scale in volts: export it in mV or uV`);
  if (new Set(leads.map((s) => s.count)).size > 1) {
    throw new RecordError(file.name, 'its leads have different sampling rates: export them at one rate');
  }
  const view = new DataView(bytes.buffer);
  const named = leads.map((s) => [s.label, samplesOf(view, s, blocks, perBlock, head.size)]);
  const signal = rowsOf(file.name, named.length ? named : head.signals.map((s) => [s.label, []]));
  return makeRecord(file.name, signal, leads[0].count / head.seconds);
}
