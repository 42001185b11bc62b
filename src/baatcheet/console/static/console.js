// What the pages do beyond links and forms: look for changes while they are seen, tell how long ago things were, and
// ask in a dialog. Without scripts all of it works too, but nothing changes by itself.
"use strict";
(() => {
  const LOOK = 1000; // milliseconds between two looks
  const LONGEST = 15000; // the same while nothing answers
  const SPEAK = 15000; // between two announcements to screen readers

  const live = document.getElementById("live");
  const state = document.getElementById("live-state");
  const dialog = document.getElementById("dialog");
  const said = document.getElementById("said");
  const news = document.getElementById("news");

  // Times -----------------------------------------------------------------------------------------------------

  function age(seconds) {
    const past = Math.abs(seconds);
    const steps = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const [size, unit] = steps.find(([size]) => past >= size) ?? steps[3];
    return `${Math.floor(past / size)} ${unit}`;
  }

  // The server's clock counts, whatever this machine's says.
  let ahead = 0;

  function tellAges(within = document) {
    const now = Date.now() + ahead;
    for (const time of within.querySelectorAll("time[data-age]")) {
      const seconds = (now - Date.parse(time.dateTime)) / 1000;
      const words = seconds >= 0 ? `${age(seconds)} ago` : `in ${age(seconds)}`;
      if (time.textContent !== words) time.textContent = words;
    }
  }

  // Announcing ------------------------------------------------------------------------------------------------

  let spokenAt = 0;
  let summary = live?.querySelector("[data-summary]")?.textContent;

  function say(words) {
    said.textContent = words;
    said.hidden = false;
  }

  function announceSummary() {
    const now = live.querySelector("[data-summary]")?.textContent;
    if (now === undefined || now === summary || Date.now() - spokenAt < SPEAK) return;
    summary = now;
    spokenAt = Date.now();
    news.textContent = now;
  }

  // Keeping up to date ----------------------------------------------------------------------------------------

  let paused = false;
  let misses = 0;
  let timer = 0;
  let looking = false;

  function show(words, mood) {
    if (state.textContent !== words) state.textContent = words;
    state.dataset.mood = mood;
  }

  function look() {
    clearTimeout(timer);
    if (live === null || paused || document.hidden || looking) return;
    looking = true;
    live.dispatchEvent(new CustomEvent("console:look"));
  }

  function lookAgain(after) {
    looking = false;
    clearTimeout(timer);
    timer = setTimeout(look, after ?? Math.min(LONGEST, LOOK * 2 ** misses));
  }

  function keepUp() {
    document.getElementById("live-switch").hidden = false;
    const button = document.getElementById("live-pause");
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Go on" : "Pause updates";
      show(paused ? "Paused" : "Live", paused ? "paused" : "well");
      look();
    });
    document.addEventListener("visibilitychange", look);
    live.addEventListener("htmx:config:request", (event) => {
      const { ctx } = event.detail;
      if (ctx.sourceElement !== live) return;
      ctx.request.headers["X-Console-Live"] = "1";
      ctx.request.headers["If-None-Match"] = live.dataset.tag;
    });
    live.addEventListener("htmx:before:response", (event) => {
      const { ctx } = event.detail;
      if (ctx.sourceElement !== live) return;
      const { status, headers } = ctx.response;
      const date = Date.parse(headers.get("date"));
      // Its date is in whole seconds.
      if (!Number.isNaN(date) && Math.abs(date - Date.now()) > 2000) ahead = date - Date.now();
      if (status === 200 || status === 304) {
        misses = 0;
        if (!paused) show("Live", "well");
        if (status === 200) live.dataset.tag = headers.get("etag");
      } else if (status === 404 || status === 401) {
        location.reload(); // to be told why
        event.preventDefault();
      } else {
        misses += 1;
        show(status === 429 ? "Too many requests; slower" : "Not up to date; trying again", "ill");
        event.preventDefault();
      }
    });
    live.addEventListener("htmx:error", (event) => {
      if (event.detail.ctx?.sourceElement !== live) return;
      misses += 1;
      show("Not connected; trying again", "ill");
      lookAgain();
    });
    live.addEventListener("htmx:after:swap", (event) => {
      if (event.detail.ctx.sourceElement !== live) return;
      tellAges(live);
      announceSummary();
    });
    live.addEventListener("htmx:finally:request", (event) => {
      if (event.detail.ctx.sourceElement === live) lookAgain();
    });
    setInterval(() => document.hidden || tellAges(), 1000);
    lookAgain();
  }

  // Asking ----------------------------------------------------------------------------------------------------

  function askHere() {
    const body = document.getElementById("dialog-body");
    document.addEventListener("htmx:after:swap", (event) => {
      const { ctx } = event.detail;
      if (ctx.target !== body) return;
      if (!dialog.open) dialog.showModal();
      (body.querySelector("[autofocus]") ?? body.querySelector("button, input"))?.focus();
      tellAges(body);
    });
    document.addEventListener("console:done", (event) => {
      if (event.detail.then) {
        location.assign(event.detail.then);
        return;
      }
      dialog.close();
      say(event.detail.text);
      if (live !== null) {
        looking = false;
        look();
      }
    });
    dialog.addEventListener("close", () => body.replaceChildren());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }

  // What was said is not said again when the page is loaded anew.
  const address = new URL(location.href);
  if (address.searchParams.has("said")) {
    address.searchParams.delete("said");
    address.searchParams.delete("n");
    history.replaceState(null, "", address);
  }
  tellAges();
  askHere();
  if (live !== null) keepUp();
})();
