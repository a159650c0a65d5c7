// Numbers of a signal: order statistics, the Fourier transform, and how a recording is prepared for the network.

const sorted = (values) => Float64Array.from(values).sort();

export function quantile(values, q) {
  const s = sorted(values), at = q * (s.length - 1), low = Math.floor(at);
  return s.length ? s[low] + (at - low) * ((s[low + 1] ?? s[low]) - s[low]) : NaN;
}

// The value below which a share of the others lie.
export function ranked(values, share) {
  return sorted(values)[Math.floor(share * (values.length - 1) + .5)];
}

export const median = (values) => quantile(values, .5);

// A row with its gaps replaced by straight lines; zeros where there is nothing.
export function bridge(row) {
  const out = Float64Array.from(row);
  let last = -1;
  for (let i = 0; i <= out.length; i++) {
    if (i < out.length && Number.isNaN(out[i])) continue;
    const end = i < out.length ? out[i] : out[last] ?? 0, start = out[last] ?? end;
    for (let j = last + 1; j < i; j++) out[j] = start + (end - start) * (j - last) / (i - last);
    last = i;
  }
  return out;
}

// ---- Fourier transform of any length (Bluestein 1970), by one of a power of two

function radix2(re, im, turn) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j], im[i], im[j]] = [re[j], re[i], im[j], im[i]];
  }
  for (let size = 2; size <= n; size *= 2) {
    const half = size / 2, step = n / size;
    for (let block = 0; block < n; block += size) {
      for (let k = 0; k < half; k++) {
        const i = block + k, j = i + half, c = turn.cos[k * step], s = turn.sin[k * step];
        const a = re[j] * c - im[j] * s, b = re[j] * s + im[j] * c;
        re[j] = re[i] - a; im[j] = im[i] - b; re[i] += a; im[i] += b;
      }
    }
  }
}

export class Fourier {
  constructor(n) {
    this.n = n;
    this.m = 2 ** Math.ceil(Math.log2(2 * n));
    const angle = (k, m) => -2 * Math.PI * k / m;
    this.turn = {cos: Float64Array.from({length: this.m / 2}, (_, k) => Math.cos(angle(k, this.m))),
      sin: Float64Array.from({length: this.m / 2}, (_, k) => Math.sin(angle(k, this.m)))};
    this.cos = Float64Array.from({length: n}, (_, k) => Math.cos(angle(k * k % (2 * n), 2 * n)));
    this.sin = Float64Array.from({length: n}, (_, k) => Math.sin(angle(k * k % (2 * n), 2 * n)));
    this.chirp = [new Float64Array(this.m), new Float64Array(this.m)];
    for (let k = 0; k < n; k++) {
      this.chirp[0][k] = this.chirp[0][(this.m - k) % this.m] = this.cos[k];
      this.chirp[1][k] = this.chirp[1][(this.m - k) % this.m] = -this.sin[k];
    }
    radix2(...this.chirp, this.turn);
  }

  // The transform of complex numbers, {re, im} of n each.
  transform(re, im) {
    const {n, m, cos, sin, chirp: [cr, ci]} = this, a = new Float64Array(m), b = new Float64Array(m);
    for (let k = 0; k < n; k++) {
      a[k] = re[k] * cos[k] - im[k] * sin[k];
      b[k] = re[k] * sin[k] + im[k] * cos[k];
    }
    radix2(a, b, this.turn);
    for (let k = 0; k < m; k++) [a[k], b[k]] = [a[k] * cr[k] - b[k] * ci[k], -(a[k] * ci[k] + b[k] * cr[k])];
    radix2(a, b, this.turn); // of the conjugate: the inverse, turned back below
    const out = {re: new Float64Array(n), im: new Float64Array(n)};
    for (let k = 0; k < n; k++) {
      out.re[k] = (a[k] * cos[k] + b[k] * sin[k]) / m;
      out.im[k] = (a[k] * sin[k] - b[k] * cos[k]) / m;
    }
    return out;
  }

  // Of two rows of real numbers at once: the halves of their spectra that tell all.
  forward(x, y) {
    const {n} = this, {re, im} = this.transform(x, y), half = (n >> 1) + 1;
    const part = (value) => Float64Array.from({length: half}, (_, k) => value(k, (n - k) % n) / 2);
    return [{re: part((k, m) => re[k] + re[m]), im: part((k, m) => im[k] - im[m])},
      {re: part((k, m) => im[k] + im[m]), im: part((k, m) => re[m] - re[k])}];
  }

  // The two rows of real numbers behind halves of spectra, each part of these weighted.
  inverse(x, y, weight) {
    // conjugated: so the same transform runs backwards
    const {n} = this, a = new Float64Array(n), b = new Float64Array(n);
    for (let k = 0; k < weight.length; k++) {
      const w = weight[k], m = (n - k) % n, xi = m === k ? 0 : x.im[k], yi = m === k ? 0 : y.im[k];
      a[m] = (x.re[k] + yi) * w;
      b[m] = (xi - y.re[k]) * w;
      a[k] = (x.re[k] - yi) * w;
      b[k] = -(xi + y.re[k]) * w;
    }
    const {re, im} = this.transform(a, b);
    return [re.map((v) => v / n), im.map((v) => -v / n)];
  }
}

// ---- preparation: high-pass, 100 Hz, limits; as ecg_nbdev.signal has it

// Second-order Butterworth high-pass, by the bilinear transform.
function butterworth(cutoff, fs) {
  const k = Math.tan(Math.PI * cutoff / fs), norm = 1 / (1 + Math.SQRT2 * k + k * k);
  return {b: [norm, -2 * norm, norm], a: [2 * (k * k - 1) * norm, (1 - Math.SQRT2 * k + k * k) * norm]};
}

// One pass of the filter, begun as if the first sample had always been there.
function pass(x, {b: [b0, b1, b2], a: [a1, a2]}) {
  const first = (b1 - a1 * b0 + b2 - a2 * b0) / (1 + a1 + a2), y = new Float64Array(x.length);
  let z1 = first * x[0], z2 = ((1 + a1) * first - (b1 - a1 * b0)) * x[0];
  for (let i = 0; i < x.length; i++) {
    y[i] = b0 * x[i] + z1;
    z1 = b1 * x[i] - a1 * y[i] + z2;
    z2 = b2 * x[i] - a2 * y[i];
  }
  return y;
}

// Forward and backward; the ends are prolonged by their own turned image.
export function highpass(row, fs, cutoff) {
  const x = bridge(row), n = x.length, pad = Math.min(Math.trunc(2 * fs / cutoff), n - 1);
  const long = Float64Array.from({length: n + 2 * pad}, (_, i) => {
    const at = i - pad;
    if (at < 0) return 2 * x[0] - x[-at];
    return at < n ? x[at] : 2 * x[n - 1] - x[2 * (n - 1) - at];
  });
  const filter = butterworth(cutoff, fs), y = pass(pass(long, filter).reverse(), filter).reverse();
  return Float32Array.from(row, (v, i) => Number.isNaN(v) ? NaN : y[pad + i]);
}

// The nearest fraction with a denominator of at most 1000: [numerator, denominator].
export function fraction(value, most = 1000) {
  let [p0, q0, p1, q1, x] = [0, 1, 1, 0, value];
  for (;;) {
    const a = Math.floor(x + 1e-12), q2 = q0 + a * q1;
    if (q2 > most) break;
    [p0, q0, p1, q1] = [p1, q1, p0 + a * p1, q2];
    if (Math.abs(x - a) < 1e-9) return [p1, q1];
    x = 1 / (x - a);
  }
  const k = Math.floor((most - q0) / q1), bound = [p0 + k * p1, q0 + k * q1];
  return Math.abs(bound[0] / bound[1] - value) < Math.abs(p1 / q1 - value) ? bound : [p1, q1];
}

function bessel0(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-17 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

// A low-pass of 20·rate+1 taps at 1/rate of Nyquist's frequency, in Kaiser's window.
function lowpass(rate) {
  const half = 10 * rate;
  const taps = Float64Array.from({length: 2 * half + 1}, (_, i) => {
    const t = (i - half) / rate, sinc = t ? Math.sin(Math.PI * t) / (Math.PI * t) : 1;
    return sinc * bessel0(5 * Math.sqrt(Math.max(0, 1 - (t / 10) ** 2)));
  });
  const sum = taps.reduce((a, v) => a + v);
  return taps.map((v) => v / sum);
}

// A row at another rate, by polyphase filtering; beyond its ends it goes on along the line from first to last sample.
export function resample(row, fs, to) {
  if (fs === to) return row;
  const [up, down] = fraction(to / fs), rate = Math.max(up, down), taps = lowpass(rate), half = 10 * rate;
  const x = bridge(row), n = x.length, slope = n > 1 ? (x[n - 1] - x[0]) / (n - 1) : 0;
  const y = Float32Array.from({length: Math.ceil(n * up / down)}, (_, m) => {
    let sum = 0;
    for (let i = Math.ceil((m * down - half) / up); i * up <= m * down + half; i++) {
      const value = i < 0 ? x[0] + i * slope : i < n ? x[i] : x[n - 1] + (i - n + 1) * slope;
      sum += value * taps[m * down - i * up + half];
    }
    return sum * up;
  });
  return y.map((v, m) => Number.isNaN(row[Math.min(roundEven(m * down / up), n - 1)]) ? NaN : v);
}

function roundEven(x) { // as NumPy rounds
  const floor = Math.floor(x);
  return x - floor === .5 ? floor + floor % 2 : Math.round(x);
}

// A recording as the network wants it: rows at the model's rate.
export function prepare(signal, fs, {fs: to, highpass: cutoff, limit}) {
  return signal.map((row) => {
    const y = resample(cutoff ? highpass(row, fs, cutoff) : row, fs, to);
    return limit ? y.map((v) => Number.isNaN(v) ? NaN : Math.min(Math.max(v, -limit), limit)) : y;
  });
}
