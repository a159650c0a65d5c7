// The network in the page: windows, probabilities, and what the thresholds make of them.
import {prepare} from './signal.js';

// First samples of evenly spread windows that hold every sample, the last one flush with the end.
export function planWindows(n, size, stride = size) {
  const rest = Math.max(n - size, 0), steps = Math.ceil(rest / stride);
  return Array.from({length: steps + 1}, (_, i) => Math.floor(i * rest / Math.max(steps, 1)));
}

// Whether a window holds enough samples, in the lead that holds most of them, to be asked.
function enough(signal, start, size, least = .3) {
  const share = signal.map((row) => {
    const piece = row.subarray(start, start + size);
    return piece.reduce((sum, v) => sum + !Number.isNaN(v), 0) / piece.length;
  });
  return Math.max(...share) >= least;
}

// The windows of a prepared signal, one after the other as the network takes them.
function cutWindows(signal, starts, size) {
  const out = new Float32Array(starts.length * signal.length * size).fill(NaN);
  starts.forEach((start, w) => signal.forEach((row, k) =>
    out.set(row.subarray(start, start + size), (w * signal.length + k) * size)));
  return out;
}

const mean = (p) => p.reduce((a, v) => a + v, 0) / p.length;
const odds = (p) => p / Math.max(1 - p, 1e-6) + 1e-6;
const STITCH = {mean, max: (p) => Math.max(...p),
  attention: (p) => mean(p.map((v) => odds(v) * v)) / mean(p.map(odds))};

const clip = (p, low = 1e-6, high = 1) => Math.min(Math.max(p, low), high);
export const logOdds = (p) => Math.log(clip(p, 1e-6, 1 - 1e-6) / (1 - clip(p, 1e-6, 1 - 1e-6)));
const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const INPUTS = {temperature: (p) => [logOdds(p)], platt: (p) => [logOdds(p), 1],
  beta: (p) => [Math.log(clip(p)), -Math.log(clip(1 - p)), 1]};

// The straight line between the points of a curve.
function interpolate(p, x, y) {
  const k = x.findIndex((v) => v >= p);
  if (k <= 0) return k ? y.at(-1) : y[0];
  return y[k - 1] + (y[k] - y[k - 1]) * (p - x[k - 1]) / (x[k] - x[k - 1]);
}

function calibrate(p, curve) {
  if (!curve || curve.method === 'none') return p;
  if (curve.method === 'isotonic') return interpolate(p, curve.x, curve.y);
  return sigmoid(INPUTS[curve.method](p).reduce((sum, v, i) => sum + v * curve.parameters[i], 0));
}

async function bytesOf(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} is not there (${answer.status}): copy the whole folder of the page`);
  return new Uint8Array(await answer.arrayBuffer());
}

// The bytes of a gzipped file, whether or not the server has unpacked it.
async function unzipped(url) {
  const bytes = await bytesOf(url);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export class Model {
  constructor(about, ort, session) { Object.assign(this, {about, ort, session}); }

  // The model of a folder, run by ONNX Runtime; nothing is loaded before.
  static async load(folder) {
    const [ort, wasm, network, about] = await Promise.all([
      import('./ort/ort.wasm.bundle.min.mjs'), unzipped(`${folder}/ort/ort-wasm-simd-threaded.wasm.gz`),
      bytesOf(`${folder}/model.onnx`), fetch(`${folder}/model.json`).then((r) => r.json())]);
    Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: wasm.buffer});
    return new Model(about, ort, await ort.InferenceSession.create(network, {executionProviders: ['wasm']}));
  }

  windows(signal) {
    const {seconds, stride} = this.about.window, fs = this.about.preparation.fs, size = Math.round(seconds * fs);
    const starts = planWindows(signal[0].length, size, stride ? Math.round(stride * fs) : size);
    return [starts.filter((start) => enough(signal, start, size)), size];
  }

  // One probability per class; null where no window holds enough samples.
  async predict(record) {
    const signal = prepare(record.signal, record.fs, this.about.preparation), [starts, size] = this.windows(signal);
    if (!starts.length) return null;
    const x = new this.ort.Tensor('float32', cutWindows(signal, starts, size), [starts.length, signal.length, size]);
    const logits = (await this.session.run({windows: x})).logits.data, {classes, window, calibration} = this.about;
    return classes.map((_, k) => {
      const rule = Array.isArray(window.stitch) ? window.stitch[k] : window.stitch;
      const p = STITCH[rule](starts.map((_, w) => sigmoid(logits[w * classes.length + k])));
      return calibrate(p, calibration?.curves[k]);
    });
  }
}

// What the thresholds make of probabilities: classes that reach them, and the one nearest to its own.
export function decide(prob, values, {classes, thresholds: {most, alone}}) {
  const margin = prob.map((p, k) => logOdds(p) - logOdds(values[k])), best = margin.indexOf(Math.max(...margin));
  const isAlone = (k) => alone.includes(classes[k]);
  const ruledOut = (k) => (isAlone(best) ? k !== best : isAlone(k));
  const order = classes.map((_, k) => k).filter((k) => !ruledOut(k)).sort((a, b) => margin[b] - margin[a]);
  return {labels: order.slice(0, most).filter((k) => margin[k] >= 0), nearest: best};
}
