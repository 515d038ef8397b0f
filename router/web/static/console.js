// Keeps the page up to date: takes the rendered main part from the stream, and changes only what differs, so
// that focus, selection, scroll positions and opened details stay. It computes nothing itself.
"use strict";

const live = document.getElementById("live");
const state = document.getElementById("state");
const pause = document.getElementById("pause");
const filter = document.getElementById("filter");

const SILENCE = 5000; // milliseconds without a picture after which the connection counts as lost
const AGAIN = 3000; // milliseconds until the next try, where the browser makes none by itself

let source = null;
let seen = 0;
let paused = false;
let waiting = null; // the newest picture that came while paused

// --- changing only what differs ---------------------------------------------------------------------------

function same(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset?.key || node.id : "";
}

function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "hidden") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  children(old, fresh);
}

function children(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) if (key(child)) keyed.set(key(child), child);
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const known = key(child) ? keyed.get(key(child)) : null;
    if (known && same(known, child)) {
      keyed.delete(key(child));
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      morph(known, child);
    } else if (at && !key(at) && same(at, child)) {
      const next = at.nextSibling;
      morph(at, child);
      at = next;
    } else {
      old.insertBefore(child, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function show(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  children(live, fresh.content);
  sift();
}

// --- what the reader does ---------------------------------------------------------------------------------

function sift() {
  const wanted = filter.value.trim().toLowerCase();
  for (const row of live.querySelectorAll("table.filtered tbody tr:not(.empty)")) {
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
  }
}

filter.addEventListener("input", sift);
filter.hidden = false;

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Go on" : "Pause";
  if (!paused && waiting !== null) show(waiting);
  waiting = null;
  if (seen) tell();
});
pause.hidden = false;

// --- the connection ---------------------------------------------------------------------------------------

function say(level, text) {
  if (state.textContent !== text) state.textContent = text;
  state.className = `state ${level}`;
  live.classList.toggle("stale", level === "bad");
}

function tell() {
  say(paused ? "warn" : "good", paused ? "paused" : "live");
}

function lost(why) {
  const at = document.getElementById("at");
  say("bad", `${why}; shown is ${at ? at.textContent : "?"} UTC. Trying again.`);
}

function connect() {
  source = new EventSource(live.dataset.stream);
  source.addEventListener("picture", (event) => {
    seen = Date.now();
    const html = JSON.parse(event.data);
    if (paused) waiting = html;
    else show(html);
    tell();
  });
  source.addEventListener("bye", () => lost("The server stops"));
  source.addEventListener("error", () => {
    lost("Connection lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(ask, AGAIN); // refused: the browser gives up
  });
}

async function ask() {
  let status = 0;
  try {
    status = (await fetch(live.dataset.stream, { method: "HEAD", cache: "no-store" })).status;
  } catch {
    // nobody is there
  }
  if (status === 401) location.reload(); // the session has ended
  else if (status === 200) connect();
  else {
    lost(status === 503 ? "Too many watch already" : "Connection lost");
    setTimeout(ask, AGAIN);
  }
}

setInterval(() => {
  if (seen && Date.now() - seen > SILENCE && !state.classList.contains("bad")) lost("No news from the server");
}, 1000);

connect();
