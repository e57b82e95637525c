// Refreshes what is marked `data-live`, and nothing else: what somebody types stays, and so does
// the place where they are. It rests while the tab is hidden, while text is selected or a button is
// held, and when told to.
"use strict";

const EVERY = 3000; // milliseconds; a page that takes long to make is asked for less often
const SELDOM = 10000; // milliseconds
const LONGEST = 10000; // milliseconds until an answer is no longer awaited
const live = document.getElementById("live");
const state = document.getElementById("state");
const regions = () => document.querySelectorAll("[data-live]");

const isOn = () => live.getAttribute("aria-pressed") === "true";

function isBusy() {
  const selection = document.getSelection();
  const selects = selection !== null && !selection.isCollapsed;
  return document.hidden || !isOn() || selects || document.querySelector("[data-live] :active");
}

// The focused element is found again by its id. If it has none, its region waits.
function replace(region, next) {
  if (region.innerHTML === next.innerHTML) return;
  const focused = region.contains(document.activeElement) ? document.activeElement : null;
  if (focused && !focused.id) return;
  const scrolled = [...region.querySelectorAll("pre[id]")].map((each) => [each.id, each.scrollTop]);
  region.innerHTML = next.innerHTML;
  for (const [id, top] of scrolled) {
    const again = document.getElementById(id);
    if (again) again.scrollTop = top;
  }
  if (focused) document.getElementById(focused.id)?.focus({ preventScroll: true });
}

async function refresh() {
  if (isBusy()) return;
  try {
    const signal = AbortSignal.timeout(LONGEST);
    const answer = await fetch(location.href, { cache: "no-store", signal });
    if (answer.redirected) return say("Your session has ended: log in", answer.url);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // A proxy's own answer has no `.problem`. It ends below: the service itself was silent.
    if (!answer.ok) return say(`Not up to date: ${page.querySelector(".problem").textContent}`);
    if (isBusy()) return;
    for (const region of regions()) {
      const next = page.getElementById(region.id);
      if (next) replace(region, next);
    }
    say("");
  } catch {
    say("Not up to date: the service doesn't answer");
  }
}

function say(text, href) {
  if (state.textContent === text) return;
  state.replaceChildren(href ? Object.assign(document.createElement("a"), { href, text }) : text);
}

async function refreshOn() {
  const begun = performance.now();
  await refresh();
  const took = performance.now() - begun;
  setTimeout(refreshOn, Math.min(SELDOM, Math.max(EVERY, 10 * took)));
}

function toggle() {
  const on = !isOn();
  live.setAttribute("aria-pressed", on);
  sessionStorage.setItem("live", on);
  if (on) refresh();
}

// One press makes one change. A browser may show the page again, as it was, to whoever goes back.
let sent = false;
addEventListener("pageshow", () => { sent = false; });
addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (sent) event.preventDefault();
  sent = true;
});

if (live && regions().length > 0) {
  live.hidden = false;
  live.setAttribute("aria-pressed", sessionStorage.getItem("live") !== "false");
  live.addEventListener("click", toggle);
  document.addEventListener("visibilitychange", refresh);
  setTimeout(refreshOn, EVERY);
}
