// A recording on ECG paper: three rows of four leads, a rhythm strip below; 25 mm/s and 10 mm/mV.
import {LEADS} from './record.js';
import {median} from './signal.js';

const NS = 'http://www.w3.org/2000/svg';
const MM_PER_S = 25, MM_PER_MV = 10, SECONDS = 10, ROW = 26, LEFT = 9, TOP = 5; // mm
const WIDTH = LEFT + SECONDS * MM_PER_S + 3, HEIGHT = TOP + 4 * ROW + 8;

function element(name, attributes, text) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Lines of the paper every `step` mm, as one path.
function grid(step, kind) {
  const line = (n, draw) => Array.from({length: Math.floor(n / step) + 1}, (_, i) => draw(i * step)).join('');
  const d = line(WIDTH, (x) => `M${x} 0V${HEIGHT}`) + line(HEIGHT, (y) => `M0 ${y}H${WIDTH}`);
  return element('path', {d, class: kind});
}

// The trace of a lead between two times, around the height `y`; gaps stay gaps.
function trace(row, fs, from, to, x, y, centre) {
  let d = '', pen = 'M';
  const end = Math.min(row.length, Math.round(to * fs) + 1);
  for (let i = Math.round(from * fs); i < end; i++) {
    if (Number.isNaN(row[i])) { pen = 'M'; continue; }
    const at = x + (i / fs - from) * MM_PER_S, high = y - Math.max(-2.4, Math.min(2.4, row[i] - centre)) * MM_PER_MV;
    d += `${pen}${at.toFixed(2)} ${high.toFixed(2)}`;
    pen = 'L';
  }
  return element('path', {d, class: 'trace'});
}

// 1 mV for 0.2 s, before each row.
function calibration(y) { return element('path', {d: `M1 ${y}h2v-10h5v10h1`, class: 'trace'}); }

const centreOf = (row) => median(row.filter((v) => !Number.isNaN(v))) || 0;

// The paper with the ten seconds from `start` on.
export function drawPaper(record, start = 0) {
  const {signal, fs, id} = record, centres = signal.map(centreOf);
  const svg = element('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img'});
  svg.append(element('title', {}, `Twelve leads of ${id} on ECG paper, from ${start.toFixed(1)} s on`));
  svg.append(grid(1, 'fine'), grid(5, 'bold'));
  const strip = (k, from, to, x, y) => {
    svg.append(trace(signal[k], fs, start + from, start + to, x, y, centres[k]));
    svg.append(element('text', {x: x + 1, y: y - 9.5, class: 'lead'}, LEADS[k]));
    if (record.missing.includes(LEADS[k])) svg.append(element('text', {x: x + 24, y, class: 'absent'}, 'absent'));
  };
  for (let row = 0; row < 3; row++) {
    const y = TOP + ROW * (row + .6);
    svg.append(calibration(y));
    for (let column = 0; column < 4; column++) {
      const x = LEFT + column * 2.5 * MM_PER_S;
      if (column) svg.append(element('path', {d: `M${x} ${y - 5}v10`, class: 'cut'}));
      strip(3 * column + row, 2.5 * column, 2.5 * (column + 1), x, y);
    }
  }
  const rhythm = [1, 0, 6].find((k) => !record.missing.includes(LEADS[k])) ?? 0, y = TOP + ROW * 3.6;
  svg.append(calibration(y));
  strip(rhythm, 0, SECONDS, LEFT, y);
  svg.append(element('text', {x: LEFT, y: HEIGHT - 1.6, class: 'scale'}, '25 mm/s · 10 mm/mV'));
  return svg;
}
