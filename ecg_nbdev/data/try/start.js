// Light or dark as on the rest of the site; then the page itself, which no browser loads from a file.
(() => {
  let kept = null;
  try { kept = localStorage.getItem('smalldocs-scheme'); } catch { /* a browser that keeps nothing */ }
  const dark = kept ? kept === 'alternate' : matchMedia('(prefers-color-scheme: dark)').matches;
  if (dark) document.documentElement.dataset.scheme = 'alternate';
  document.documentElement.classList.toggle('quarto-dark', dark);
  if (location.protocol === 'file:') {
    addEventListener('DOMContentLoaded', () => { document.getElementById('served').hidden = false; });
  } else import('./page.js');
})();
