// One output at a time, keys, a draft that survives a reload, and the seconds in which the item was visible.
// Without this script the form is one long page that works all the same.
"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const correct = () => one("#correct")?.click();
  const form = one("#form");
  const typing = (event) => event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=radio], [type=checkbox]), textarea");
  if (!form) {
    document.addEventListener("keydown", (event) => { if (!typing(event) && event.key === "z") correct(); });
    return;
  }
  const steps = all(".step"), last = steps.length - 1, cards = all(".card"), skip = one("#skip"), help = one("#help");
  const checked = (name) => one(`input[name="${name}"]:checked`)?.value;
  const complete = (step) => step < last ? checked(`quality-${step}`) !== undefined : cards.every((_, at) => checked(`rank-${at}`));
  let now = 0, marked = 0, sent = false;

  function show() {
    steps.forEach((step, at) => step.classList.toggle("now", at === now));
    cards.forEach((card, at) => card.classList.toggle("now", at === marked));
    all("#steps button").forEach((button, at) => {
      button.classList.toggle("now", at === now);
      button.classList.toggle("done", complete(at));
      button.toggleAttribute("aria-current", at === now);
    });
    cards.forEach((_, at) => { one(`[data-shown-quality="${at}"]`).textContent = checked(`quality-${at}`) ? `quality ${checked(`quality-${at}`)}` : ""; });
    const groups = cards.map((_, rank) => cards.filter((_, at) => checked(`rank-${at}`) === String(rank + 1)).map((card) => card.dataset.name).join(" = "));
    one("#order").textContent = groups.filter(Boolean).join(" > ");
  }
  function missing(words) {
    const place = one("#missing");
    place.textContent = words;
    place.hidden = !words;
  }
  function go(step) {
    now = Math.max(0, Math.min(last, step));
    if (now === last) marked = Math.max(0, cards.findIndex((_, at) => !checked(`rank-${at}`)));
    missing("");
    show();
    const top = form.getBoundingClientRect().top;
    if (top < 0 || top > innerHeight / 2) form.scrollIntoView();
  }
  function mark(at) {
    marked = (at + cards.length) % cards.length;
    show();
    cards[marked].scrollIntoView({ block: "nearest" });
  }
  function choose(name, value) {
    const input = one(`input[name="${name}"][value="${value}"]`);
    if (!input) return false;
    input.checked = true;
    changed();
    return true;
  }
  function forward() {
    if (now < last) go(now + 1);
    else form.requestSubmit(one("#submit"));
  }

  // A draft per item, kept in this tab until the next item is shown.
  const drafted = `draft ${location.pathname}`;
  function changed() {
    const fields = [...new FormData(form)].filter(([name]) => /^(quality|rank|flag)-/.test(name));
    try { sessionStorage.setItem(drafted, JSON.stringify(fields)); } catch { /* no room: then without a draft */ }
    show();
  }
  try {
    Object.keys(sessionStorage).filter((key) => key.startsWith("draft ") && key !== drafted).forEach((key) => sessionStorage.removeItem(key));
    if (!one("input:checked", form)) {
      for (const [name, value] of JSON.parse(sessionStorage.getItem(drafted) ?? "[]")) {
        const input = all("input", form).find((it) => it.name === name && it.value === value);
        if (input) input.checked = true;
      }
    }
  } catch { /* storage is closed: then without a draft */ }

  // Seconds during which the item was visible.
  let visible = 0, since = document.hidden ? null : performance.now();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && since !== null) { visible += performance.now() - since; since = null; }
    else if (!document.hidden && since === null) since = performance.now();
  });
  const seconds = () => ((visible + (since === null ? 0 : performance.now() - since)) / 1000).toFixed(2);

  form.addEventListener("change", changed);
  form.addEventListener("click", (event) => {
    const to = event.target.closest("[data-to]");
    if (to) go(Number(to.dataset.to));
    const card = event.target.closest(".card");
    if (card) { marked = cards.indexOf(card); show(); }
    // After a click the arrow keys are for steps again, not for the button that was clicked.
    if (event.detail > 0 && event.target.matches("input[type=radio], input[type=checkbox]")) event.target.blur();
  });
  form.addEventListener("submit", (event) => {
    const skipping = event.submitter?.name === "skipped";
    const open = skipping ? -1 : steps.findIndex((_, at) => !complete(at));
    if (open >= 0 || sent) {
      event.preventDefault();
      if (sent) return;
      go(open);
      missing(open < last ? "Choose the quality of this output." : "Rank every output; equal ranks are ties.");
      return;
    }
    one("#seconds").value = seconds();
    sent = true;
  });
  addEventListener("pageshow", () => { sent = false; });

  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter ends the choice of a character, not the item
    if (event.target.matches("input[name=other_reason]") && event.key === "Enter") { one("#other").click(); return event.preventDefault(); }
    if (typing(event)) return;
    const { key } = event, digit = /^[1-9]$/.test(key), onButton = event.target.matches("button, summary, a");
    const done = () => event.preventDefault();
    if (event.repeat && /^(Enter|[a-z0-9?])$/.test(key)) return done(); // a key that is held down is one answer
    if (key === "?") { help.open = !help.open; return done(); }
    if (key === "z") { correct(); return done(); }
    if (key === "s") { skip.open = !skip.open; if (skip.open) skip.scrollIntoView({ block: "nearest" }); return done(); }
    if (skip.open) {
      if (key === "Escape") { skip.open = false; return done(); }
      if (digit) { one(`[data-reason="${key}"]`)?.click(); return done(); }
      return;
    }
    if (key === "Enter" && !onButton) { forward(); return done(); }
    if (event.target.matches("input") && key.startsWith("Arrow")) return; // of a group that was reached by Tab
    if (key === "ArrowRight" && now < last) { go(now + 1); return done(); }
    if (key === "ArrowLeft") { go(now - 1); return done(); }
    if (now === last) {
      if (key === "ArrowDown") { mark(marked + 1); return done(); }
      if (key === "ArrowUp") { mark(marked - 1); return done(); }
      if (digit && choose(`rank-${marked}`, key)) { if (marked < cards.length - 1) mark(marked + 1); return done(); }
      return;
    }
    if (digit && choose(`quality-${now}`, key)) return done();
    const flag = /^[a-r]$/.test(key) && one(`input[name="flag-${now}"][data-key="${key}"]`);
    if (flag) { flag.checked = !flag.checked; changed(); done(); }
  });

  form.noValidate = true;
  document.body.classList.add("stepwise");
  all("#steps, .go, .scripted").forEach((item) => { item.hidden = false; });
  if (matchMedia("(max-width: 800px)").matches) help.open = false;
  show();
})();
