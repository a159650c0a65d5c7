'use strict'
// The numbers of the page, from the probabilities it holds. The rules of decoding are those of ecg_nbdev.thresholds.Thresholds.
const D = JSON.parse(document.getElementById('data').textContent), K = D.classes.length, N = D.ids.length
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0))
const bits = text => { const b = bytes(text), out = new Uint8Array(N*K); for (let i = 0; i < out.length; i++) out[i] = b[i >> 3] >> (7-(i & 7)) & 1; return out }
const truth = bits(D.truth), known = bits(D.known), saved = D.thresholds && D.thresholds.values
const each = (n, f) => Array.from({length: n}, (_, i) => f(i)), sum = a => a.reduce((s, v) => s+v, 0), mean = a => { const known = a.filter(v => !Number.isNaN(v)); return known.length ? sum(known)/known.length : NaN } // of what is defined
const clip = (v, low, high) => Math.min(Math.max(v, low), high)
const logit = p => { p = clip(p, 1e-6, 1-1e-6); return Math.log(p)-Math.log1p(-p) }
const expit = v => 1/(1+Math.exp(-v)), many = 'log_odds' in D // recordings: log odds in two bytes
const far = many ? Float64Array.from(new Int16Array(bytes(D.log_odds).buffer), v => v*D.reach/32767) : new Float64Array(bytes(D.prob).buffer).map(logit)
const prob = many ? far.map(expit) : new Float64Array(bytes(D.prob).buffer)

// -- answers: so many labels at least and at most; some classes, as Normal, keep no company
function decode(at) {
  const answer = new Uint8Array(N*K), top = new Uint8Array(N), cut = at.map(logit), {least, most} = D.thresholds
  const alone = D.classes.map(name => D.thresholds.alone.includes(name)), margin = new Float64Array(K)
  for (let i = 0; i < N; i++) {
    let best = 0
    for (let k = 0; k < K; k++) { margin[k] = far[i*K+k]-cut[k]; if (margin[k] > margin[best]) best = k }
    const open = k => alone[best] ? k === best : !alone[k]
    let first = -1
    for (let k = 0; k < K; k++) {
      if (!open(k)) continue
      let place = 0
      for (let j = 0; j < K; j++) if (open(j) && (margin[j] > margin[k] || margin[j] === margin[k] && j < k)) place++
      if (margin[k] >= 0 && place < most || place < least) { answer[i*K+k] = 1; if (first < 0 || margin[k] > margin[first]) first = k }
    }
    top[i] = first < 0 ? best : first // where nothing is answered, the nearest
  }
  return {answer, top}
}
const told = {answer: bits(D.answer), top: D.top} // at the saved thresholds, exactly
const answers = at => at && !(many && at.every((v, k) => v === saved[k])) ? decode(at) : told

// -- scores, NaN where they are not defined; unknown labels count for no class, recordings with one for no score of label sets
const whole = each(N, i => known.subarray(i*K, i*K+K).every(v => v)), W = sum(whole.map(Number))
const sure = each(K, k => each(N, i => i).filter(i => known[i*K+k])) // the recordings of each class
function picked(k) { // of many recordings some, to be drawn: of those with the class and of those without, each counting for `weight` of them
  const parts = [0, 1].map(t => sure[k].filter(i => truth[i*K+k] === t)), some = parts.map(a => { const step = many ? Math.ceil(a.length/4000) || 1 : 1; return a.filter((_, j) => j%step === 0) })
  const rows = some.flat().sort((a, b) => a-b), weight = some.map((a, t) => a.length ? parts[t].length/a.length : 0)
  return {rows, weight, P: parts[1].length, M: sure[k].length}
}
const shown = each(K, picked)
const ratio = (a, b, otherwise = 0) => b > 0 ? a/b : otherwise
function wilson(hits, n) { // 95 % interval of a share (Wilson 1927)
  if (!n) return [NaN, NaN]
  const z = 1.959963984540054, p = hits/n, middle = (p+z*z/(2*n))/(1+z*z/n), half = z/(1+z*z/n)*Math.sqrt(p*(1-p)/n+z*z/(4*n*n))
  return [Math.max(middle-half, 0), Math.min(middle+half, 1)]
}
function score({answer, top}) {
  const tp = new Int32Array(K), fp = new Int32Array(K), fn = new Int32Array(K), official = each(K, () => new Int32Array(K))
  const labels = new Int32Array(K+1)
  let exact = 0
  for (let i = 0; i < N; i++) {
    let same = true
    for (let k = 0; k < K; k++) {
      if (!known[i*K+k]) continue
      const t = truth[i*K+k], a = answer[i*K+k]
      if (t && a) tp[k]++; else if (a) { fp[k]++; same = false } else if (t) { fn[k]++; same = false }
    }
    exact += same && whole[i]; let held = 0; for (let k = 0; k < K; k++) held += answer[i*K+k]; labels[held]++
    if (whole[i]) official[truth[i*K+top[i]] ? top[i] : D.first[i]][top[i]]++
  }
  const rows = each(K, k => { const [a, b, c] = [tp[k], fp[k], fn[k]], d = sure[k].length-a-b-c, of = v => a+c ? v : NaN
    return {tp: a, fp: b, fn: c, tn: d, sensitivity: of(ratio(a, a+c)), specificity: ratio(d, d+b, NaN), ppv: of(ratio(a, a+b)), npv: ratio(d, d+c, NaN), f1: of(ratio(2*a, 2*a+b+c))} })
  const all = key => sum(rows.map(r => r[key])), column = k => sum(official.map(r => r[k]))
  const group = of => ratio(2*sum(of.map(k => official[k][k])), sum(of.map(k => sum([...official[k]])+column(k))), NaN)
  const average = key => mean(rows.map(r => r[key]))
  return {rows, official, answer, labels, groups: {F1: mean(each(K, k => group([k]))), ...Object.fromEntries(Object.entries(D.groups).map(([name, of]) => [name, group(of)]))},
    macro: {sensitivity: average('sensitivity'), specificity: average('specificity'), ppv: average('ppv'), f1: average('f1')},
    micro: {sensitivity: ratio(all('tp'), all('tp')+all('fn')), specificity: ratio(all('tn'), all('tn')+all('fp')), ppv: ratio(all('tp'), all('tp')+all('fp')), f1: ratio(2*all('tp'), 2*all('tp')+all('fp')+all('fn'))},
    totals: {macro_f1: average('f1'), micro_f1: ratio(2*all('tp'), 2*all('tp')+all('fp')+all('fn')), exact_match: ratio(exact, W, NaN), cpsc2018_f1: mean(each(K, k => group([k])))}}
}

// -- drawing
const $ = (query, root = document) => root.querySelector(query), $$ = (query, root = document) => [...root.querySelectorAll(query)]
const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
const show = (v, digits = 3) => Number.isFinite(v) ? v.toFixed(digits) : '–'
function put(node, v, digits = 3) { if (node) { node.textContent = digits ? show(v, digits) : Number.isFinite(v) ? v.toLocaleString('en') : '–'; node.dataset.value = v } }
function line(points, W, H) { // only points that a screen can tell apart
  let text = '', x0 = NaN, y0 = NaN
  points.forEach(([x, y], i) => {
    if (!Number.isFinite(y)) { x0 = NaN; return }
    const [px, py] = [x*W, (1-y)*H]
    if (i && i < points.length-1 && Math.abs(px-x0)+Math.abs(py-y0) < .7) return
    text += (Number.isNaN(x0) ? 'M' : 'L')+px.toFixed(1)+' '+py.toFixed(1); x0 = px; y0 = py
  })
  return text
}
function frame(W, H, body, xticks, xlabel, ylabel) {
  const ticks = [0, .5, 1]
  const grid = ticks.map(v => `<path class="axis" d="M0 ${(1-v)*H}H${W}"/><text x="-5" y="${(1-v)*H+3.5}" text-anchor="end">${v}</text>`).join('')
  const below = xticks.map(([x, text]) => `<path class="axis" d="M${x*W} 0V${H}"/><text x="${x*W}" y="${H+13}" text-anchor="middle">${text}</text>`).join('')
  return `<svg class="chart" viewBox="-24 -8 ${W+34} ${H+38}" role="img" aria-label="${escape(ylabel)} against ${escape(xlabel)}">${grid}${below}<text x="${W/2}" y="${H+27}" text-anchor="middle">${xlabel}</text>${body}</svg>`
}
const unit = [[0, '0'], [.5, '0.5'], [1, '1']], SIZE = [170, 150], WIDE = [280, 150]

function sweep(k, from) { // the scores of a class from its highest threshold down; `from`: below which log odds each recording is answered with it
  const {rows, weight, P, M} = shown[k], order = [...rows].sort((a, b) => from[b]-from[a]), cuts = []
  let tp = 0, fp = 0
  order.forEach((i, j) => {
    truth[i*K+k] ? tp += weight[1] : fp += weight[0]
    if (j+1 === order.length || from[order[j+1]] !== from[i]) cuts.push({v: from[i], sens: P ? tp/P : NaN, spec: M > P ? 1-fp/(M-P) : NaN, ppv: P ? tp/(tp+fp) : NaN, f1: P ? 2*tp/(P+tp+fp) : NaN})
  })
  if (!M) cuts.push({v: 0, sens: NaN, spec: NaN, ppv: NaN, f1: NaN})
  return {cuts, P, M}
}
function own(k) { // (N) log odds of the recordings of class k that are drawn
  const from = new Float64Array(N)
  for (const i of shown[k].rows) from[i] = far[i*K+k]
  return from
}
function reach(k, at) { // (N) the log odds below which class k's threshold answers each of them with it, the other thresholds as they are
  const cut = at.map(logit), {least, most} = D.thresholds, alone = D.classes.map(name => D.thresholds.alone.includes(name))
  const place = (margins, n) => n <= margins.length ? margins[n-1] : -Infinity, rest = each(K, j => j).filter(j => j !== k)
  const from = new Float64Array(N)
  for (const i of shown[k].rows) from[i] = below(i)
  return from
  function below(i) {
    const sorted = classes => classes.map(j => far[i*K+j]-cut[j]).sort((a, b) => b-a)
    if (alone[k]) return far[i*K+k]-Math.max(place(sorted(rest), 1), least ? -Infinity : 0)
    const others = sorted(rest.filter(j => !alone[j])), surest = place(sorted(rest.filter(j => alone[j])), 1)
    const free = Math.max(0, place(others, most)), forced = least ? place(others, least) : Infinity
    const ruled = place(others, 1) > surest ? -Infinity : surest // a class that keeps no company is surer than all others
    return far[i*K+k]-Math.max(ruled, Math.min(free, forced))
  }
}
function steps(k, c, now) { // a threshold's scores hold down to the next one that makes a difference
  const {cuts, P, M} = sweep(k, now ? reach(k, now) : own(k)), at = v => (clip(v, c.low, c.high)-c.low)/(c.high-c.low)
  const nobody = {v: c.high, sens: P ? 0 : NaN, spec: P < M ? 1 : NaN, ppv: P ? 0 : NaN, f1: P ? 0 : NaN}, all = [nobody, ...cuts]
  return all.flatMap((q, j) => [[at(q.v), q], [at(j+1 < all.length ? all[j+1].v : c.low), q]])
}
function curves(k) {
  const {cuts, P, M} = sweep(k, own(k))
  const low = clip(Math.min(cuts[cuts.length-1].v, saved ? logit(saved[k])-1 : 0), -13.8, 13), high = clip(Math.max(cuts[0].v, saved ? logit(saved[k])+1 : 0), low+1, 13.8)
  return {cuts, P, M, low, high}
}
const marks = [.5, .1, .9, .01, .99, .001, .999, 1e-4, .9999, 1e-5, .3, .7, .2, .8, .05, .95, .02, .98] // the more telling ones first
function draw(k, box) {
  const c = curves(k), [W, H] = SIZE, at = v => (v-c.low)/(c.high-c.low)
  const none = text => `<p class="soft">${text}</p>`
  const roc = `<path class="axis" d="M0 ${H}L${W} 0" stroke-dasharray="3 3"/><path class="sens" d="${line([[0, 0], ...c.cuts.map(q => [1-q.spec, q.sens])], W, H)}"/><circle class="dot" r="5"/>`
  const pr = `<path class="axis" d="M0 ${(1-c.P/c.M)*H}H${W}" stroke-dasharray="3 3"/><path class="ppv" d="${line(c.cuts.flatMap((q, j) => [[j ? c.cuts[j-1].sens : 0, q.ppv], [q.sens, q.ppv]]), W, H)}"/><circle class="dot" r="5"/>`
  const half = c.P > 0 && c.P < c.M
  $('.roc', box).innerHTML += half ? frame(W, H, roc, unit, '1 − specificity', 'sensitivity') : none('No ROC curve: '+(!c.M ? 'of no recording it is known, so no' : c.P ? 'every' : 'no')+' recording is labelled with it.')
  $('.pr', box).innerHTML += c.P ? frame(W, H, pr, unit, 'sensitivity', 'PPV') : none('No curve: no recording is labelled with it.')
  $('.reliability', box).innerHTML += frame(W, H, reliability(k, W, H), unit, 'probability given', 'share labelled with it')
  const [V, U] = WIDE, ticks = marks.reduce((kept, p) => { const x = at(logit(p)); return x < .02 || x > .98 || kept.some(([other]) => Math.abs(x-other) < .13) ? kept : [...kept, [x, p]] }, [])
  const lines = ['spec', 'ppv', 'sens', 'f1'].map(name => `<path class="${name}"/>`).join('')
  $('.sweep .plot', box).innerHTML = frame(V, U, lines+(saved ? `<path class="at" d="M0 0V${U}"/>` : ''), ticks, 'threshold', 'scores')
  c.draw = now => { const points = steps(k, c, now); for (const name of ['spec', 'ppv', 'sens', 'f1']) $(`.plot .${name}`, box).setAttribute('d', line(points.map(([x, q]) => [x, q[name]]), V, U)) }
  c.draw(saved)
  return c
}
function reliability(k, W, H) {
  const n = new Float64Array(10), p = new Float64Array(10), t = new Float64Array(10)
  for (const i of sure[k]) { const b = Math.min(prob[i*K+k]*10 | 0, 9); n[b]++; p[b] += prob[i*K+k]; t[b] += truth[i*K+k] }
  const dots = each(10, b => n[b] ? `<circle cx="${(p[b]/n[b]*W).toFixed(1)}" cy="${((1-t[b]/n[b])*H).toFixed(1)}" r="${(2+5*Math.sqrt(n[b]/N)).toFixed(1)}" fill="var(--spec)" fill-opacity=".75"><title>${n[b]} recordings: given ${show(p[b]/n[b])}, labelled with it ${show(t[b]/n[b])}</title></circle>` : '').join('')
  return `<path class="axis" d="M0 ${H}L${W} 0" stroke-dasharray="3 3"/><path class="spec" stroke-opacity=".5" d="${line(each(10, b => b).filter(b => n[b]).map(b => [p[b]/n[b], t[b]/n[b]]), W, H)}"/>${dots}`
}
function heat(table, values, top) {
  $$('tbody td', table).forEach((cell, i) => {
    const row = Math.floor(i/K), v = values[row][i%K]
    cell.textContent = v || '·'; cell.dataset.value = v; cell.style.setProperty('--w', Math.min(1, Math.sqrt(ratio(v, top(row)))))
  })
}
const together = Y => each(K, a => each(K, b => { let n = 0; for (let i = 0; i < N; i++) n += Y[i*K+a] & Y[i*K+b]; return n }))

// -- the page
const now = saved && saved.slice(), boxes = $$('.point'), drawn = boxes.map((box, k) => draw(k, box))
const first = score(answers(saved)), carried = together(truth), most = Math.max(...carried.flat())
heat($('#carried'), carried, () => most)
function between(node, hits, n) { // an interval, and what it rests on
  const range = wilson(hits, n)
  node.textContent = n ? `${range.map(v => show(v, 2)).join('–')}${node.closest('td') ? '' : `, ${hits.toLocaleString('en')} of ${n.toLocaleString('en')}`}` : ''
  node.dataset.value = JSON.stringify(range)
}
function elsewhere(k, r) { // what an answer is worth where the class is more or less common (Bayes)
  const share = clip(+$('.share', boxes[k]).value/100, 0, 1), hit = r.sensitivity*share, miss = (1-r.sensitivity)*share, right = r.specificity*(1-share), wrong = (1-r.specificity)*(1-share)
  put($('[data-at=ppv]', boxes[k]), hit/(hit+wrong)); put($('[data-at=npv]', boxes[k]), right/(right+miss))
}
const drawable = id => D.ecg && Object.hasOwn(D.ecg.records, id)
function names(k, S) {
  const box = $('details', boxes[k])
  if (!box.open) return
  const list = (want, text) => {
    const rows = sure[k].filter(i => truth[i*K+k] !== S.answer[i*K+k] && truth[i*K+k] === want).sort((a, b) => want ? prob[a*K+k]-prob[b*K+k] : prob[b*K+k]-prob[a*K+k])
    return `<div class="names"><span>${text}: ${rows.length || 'none'}</span>${rows.slice(0, 60).map(i => `<span>${drawable(D.ids[i]) ? `<button type=button class=open data-i=${i}><code>${escape(D.ids[i])}</code></button>` : `<code>${escape(D.ids[i])}</code>`} ${show(prob[i*K+k])}</span>`).join('')}${rows.length > 60 ? `<span>… and ${rows.length-60} more</span>` : ''}</div>`
  }
  $('.who', box).innerHTML = list(1, 'Missed (FN)')+list(0, 'False alarms (FP)')
}
function render() {
  const S = score(answers(now)), moved = saved && now.some((v, k) => v !== saved[k])
  S.rows.forEach((r, k) => {
    const shown = {...r, threshold: now && now[k]}
    const ranges = {sensitivity: [r.tp, r.tp+r.fn], specificity: [r.tn, r.tn+r.fp], ppv: [r.tp, r.tp+r.fp]}
    for (const root of [boxes[k], $(`#classes tr[data-k="${k}"]`)]) {
      $$('[data-field]', root).forEach(node => put(node, shown[node.dataset.field], ['tp', 'fp', 'fn', 'tn'].includes(node.dataset.field) ? 0 : 3))
      $$('[data-range]', root).forEach(node => between(node, ...ranges[node.dataset.range]))
    }
    elsewhere(k, r)
    if (saved) drawn[k].draw(now)
    const dot = (query, x, y) => {
      const node = $(query, boxes[k]), defined = Number.isFinite(x+y)
      if (!node) return
      node.style.display = defined ? '' : 'none'
      if (defined) { node.setAttribute('cx', x*SIZE[0]); node.setAttribute('cy', (1-y)*SIZE[1]) }
    }
    dot('.roc .dot', 1-r.specificity, r.sensitivity); dot('.pr .dot', r.sensitivity, r.tp+r.fp ? r.ppv : NaN)
    if (saved) {
      const at = clip((logit(now[k])-drawn[k].low)/(drawn[k].high-drawn[k].low), 0, 1)*WIDE[0]
      $('.at', boxes[k]).setAttribute('d', `M${at.toFixed(1)} 0V${WIDE[1]}`)
    }
    names(k, S)
  })
  for (const kind of ['macro', 'micro']) $$(`#classes tr.${kind} [data-field]`).forEach(node => put(node, S[kind][node.dataset.field]))
  for (const [name, v] of Object.entries(S.totals)) {
    put($(`#live [data-total="${name}"]`), v)
    const gap = v-first.totals[name], node = $(`#live [data-gap="${name}"]`)
    if (!node) continue // a score that these classes do not have
    node.textContent = moved && Math.abs(gap) >= .0005 ? (gap > 0 ? '+' : '−')+Math.abs(gap).toFixed(3) : ''; node.className = gap > 0 ? 'up' : 'down'
  }
  for (const [name, v] of Object.entries(S.groups)) put($(`[data-group="${name}"]`), v)
  $$('[data-labels]').forEach(node => put(node, S.labels[node.dataset.labels], 0))
  const rows = S.official.map(r => sum([...r])), pairs = together(S.answer)
  heat($('#official'), S.official, a => rows[a]); heat($('#answered'), pairs, () => most)
  if (saved) $$('#live button').forEach(b => b.disabled = !moved)
}
if (saved) boxes.forEach((box, k) => {
  const slider = $('input[type=range]', box), number = $('.cut', box), {low, high} = drawn[k]
  slider.min = low; slider.max = high; slider.step = (high-low)/500
  const place = () => { slider.value = logit(now[k]); slider.setAttribute('aria-valuetext', show(now[k])); number.value = +now[k].toFixed(4) }
  slider.oninput = () => { now[k] = expit(+slider.value); place(); render() }
  number.onchange = () => { if (number.value !== '') now[k] = clip(+number.value, 0, 1); place(); render() }
  box.reset = () => { now[k] = saved[k]; place() }
  box.reset()
})
boxes.forEach((box, k) => $('details', box).ontoggle = render)
boxes.forEach((box, k) => { const share = $('.share', box); share.value = drawn[k].M ? +(100*drawn[k].P/drawn[k].M).toPrecision(3) : 0; share.onchange = render })

// -- a recording on ECG paper: 25 mm/s, 10 mm/mV, four columns of 2.5 s and lead II below them; one unit is a millimetre
function leads(id) { // name → samples in mV
  const r = D.ecg.records[id], x = new Int8Array(bytes(r.x).buffer), found = {}
  r.leads.forEach((name, l) => found[name] = each(r.n, t => { const v = x[l*r.n+t]; return v === -128 ? NaN : v*r.mv[l] }))
  const {I, II} = found, derive = f => each(r.n, t => f(I[t], II[t]))
  if (I && II) Object.assign(found, {III: derive((a, b) => b-a), aVR: derive((a, b) => -(a+b)/2), aVL: derive((a, b) => a-b/2), aVF: derive((a, b) => b-a/2), ...found})
  return found
}
function paper(id) {
  const found = leads(id), fs = D.ecg.fs, left = 12, rowY = r => 20+26*r
  const trace = (name, from, to, x0, y) => {
    let d = '', on = false
    for (let t = Math.round(from*fs); t <= to*fs && t < (found[name] || []).length; t++) {
      const v = found[name][t]
      d += Number.isNaN(v) ? '' : `${on ? 'L' : 'M'}${(x0+(t/fs-from)*25).toFixed(2)} ${(y-10*v).toFixed(2)}`
      on = !Number.isNaN(v)
    }
    return `<path class=trace d="${d}"/><text x=${x0+1} y=${y-9}>${name}</text>${from ? `<path class=trace d="M${x0} ${y-4}v8"/>` : ''}`
  }
  const rows = [['I', 'aVR', 'V1', 'V4'], ['II', 'aVL', 'V2', 'V5'], ['III', 'aVF', 'V3', 'V6']]
  const body = rows.map((row, r) => row.map((name, c) => trace(name, 2.5*c, 2.5*(c+1), left+62.5*c, rowY(r))).join('')).join('')+trace('II', 0, 10, left, rowY(3))
  const pulse = each(4, r => `<path class=trace d="M3 ${rowY(r)}h2v-10h4v10h2"/>`).join('')
  const grid = ['thin', 'strong'].map((kind, i) => `<pattern id=${kind} width=${i ? 5 : 1} height=${i ? 5 : 1} patternUnits=userSpaceOnUse><path d="M0 0H5M0 0V5" fill=none stroke=var(--ecg-${kind}) stroke-width=${i ? .25 : .12} /></pattern>`).join('')
  return `<svg viewBox="0 0 265 115" role=img aria-label="twelve-lead recording ${escape(id)}"><defs>${grid}</defs><rect width=265 height=115 fill="var(--ecg-page)"/><rect width=265 height=115 fill="url(#thin)"/><rect width=265 height=115 fill="url(#strong)"/>${pulse}${body}</svg>`
}
function opened(i) {
  const id = D.ids[i], r = D.ecg.records[id], of = Y => D.classes.filter((_, k) => Y[i*K+k]).join(', ') || 'nothing'
  $('#ecg h3').textContent = id
  $('#ecg .facts').textContent = `labelled ${of(truth)}; answered ${of(answers(now).answer)}. ${r.seconds > 10.05 ? `The first 10 of ${+r.seconds.toFixed(1)} s` : 'The whole recording'}, 25 mm/s, 10 mm/mV, drawn from ${D.ecg.fs} samples a second.`
  $('#ecg .sheet').innerHTML = paper(id)
  $('#ecg').showModal()
}
document.addEventListener('click', event => { const b = event.target.closest('button.open'); if (b) opened(+b.dataset.i) })
$('#ecg button').onclick = () => $('#ecg').close()
function chosenOn() { // the marks of these recordings: a kind and 32 hexadecimal digits
  if (Array.isArray(D.marks)) return D.marks
  const hex = Array.from(bytes(D.marks.digits), b => b.toString(16).padStart(2, '0')).join('')
  return each(N, i => `${D.marks.kind}:${hex.slice(32*i, 32*i+32)}`)
}
if (saved) {
  $('#reset').onclick = () => { boxes.forEach(box => box.reset()); render() }
  $('#copy').onclick = async event => {
    const text = JSON.stringify({...D.thresholds, values: now, about: {chosen: 'by hand, on the recordings of a report'}, chosen_on: [...new Set([...D.thresholds.chosen_on, ...chosenOn()])]}), button = event.target
    try { await navigator.clipboard.writeText(text); button.textContent = 'Copied' } catch { prompt('Thresholds', text) }
    setTimeout(() => button.textContent = 'Copy thresholds', 1500)
  }
}
const root = document.documentElement, keep = theme => { root.dataset.theme = theme; try { localStorage.theme = theme } catch {} }
try { if (localStorage.theme) root.dataset.theme = localStorage.theme } catch {}
$('#theme').onclick = () => keep((root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark' ? 'light' : 'dark')
render()
