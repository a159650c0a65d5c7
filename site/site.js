
// ---- what ecg_nbdev adds to smalldocs: keys for what scrolls, a search that finds words, figures at full size

document.querySelectorAll("pre, .sd-table, .cell-output-display, .drawing").forEach((e) => {
  if (e.scrollWidth > e.clientWidth) e.tabIndex = 0;
});
document.querySelectorAll('.sidebar-navigation [role="button"]').forEach((e) => e.addEventListener("keydown", (ev) => {
  if (ev.key === "Enter" || ev.key === " ") { ev.preventDefault(); e.click(); }
}));

// every word must be there, as it is written; what is named so comes first, then tutorials and guides, the library last
window.findInSite = (index, query) => {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const places = [/^(index|gallery|tutorials\/(quickstart|your_own_data))\.html/, /^tutorials\//, /^guide\//, /^results\//, /^explore\//];
  const rank = (entry) => {
    const [title, section, text] = [entry.title, entry.section, entry.text].map((t) => (t || "").toLowerCase());
    if (!words.every((w) => (title + " " + section + " " + text).includes(w))) return null;
    const place = places.findIndex((p) => p.test(entry.href)), named = section || title;
    return [named === words.join(" ") ? 0 : 1, place < 0 ? 1 : 0,
            words.every((w) => named.includes(w)) ? 0 : words.every((w) => title.includes(w)) ? 1 : 2, place];
  };
  const found = index.map((entry, i) => ({ entry, by: rank(entry), i })).filter((f) => f.by);
  const apart = (a, b) => a.by[0] - b.by[0] || a.by[1] - b.by[1] || a.by[2] - b.by[2] || a.by[3] - b.by[3] || a.i - b.i;
  return found.sort(apart).map((f) => f.entry);
};

// a tap on a figure opens it at full size, to be scrolled
(() => {
  const figures = document.querySelectorAll("main .cell-output-display img, main .cell-output-display > svg, main .drawing > svg");
  if (!figures.length || !window.HTMLDialogElement) return;
  const zoom = document.createElement("dialog");
  zoom.className = "zoom";
  zoom.innerHTML = '<form method="dialog"><button>Close</button></form><div class="zoom-sheet" tabindex="0"></div>';
  document.body.append(zoom);
  const sheet = zoom.querySelector(".zoom-sheet");
  const open = (figure) => {
    const copy = figure.cloneNode(true), shown = figure.getBoundingClientRect().width;
    for (const name of ["role", "tabindex", "aria-label"]) copy.removeAttribute(name);
    copy.setAttribute("style", `width: ${Math.round(Math.max(figure.naturalWidth || 0, 1.25 * shown, 1000))}px`);
    sheet.replaceChildren(copy);
    zoom.setAttribute("aria-label", figure.getAttribute("alt") || "Figure");
    zoom.showModal();
    sheet.scrollTo(0, 0);
  };
  zoom.addEventListener("click", (ev) => { if (ev.target === zoom) zoom.close(); });
  figures.forEach((figure) => {
    if (figure.closest("a")) return;
    figure.classList.add("zoomable");
    if (figure.tagName === "IMG") {
      figure.tabIndex = 0;
      figure.setAttribute("role", "button");
      figure.setAttribute("aria-label", `${figure.alt || "Figure"}: open at full size`);
    }
    figure.addEventListener("click", () => open(figure));
    figure.addEventListener("keydown", (ev) => { if (ev.key === "Enter" || ev.key === " ") { ev.preventDefault(); open(figure); } });
  });
})();
