// Updates the overview: the server sends the content of #live as server-sent events.
"use strict";

const live = document.getElementById("live");
const state = document.getElementById("live-state");
const RETRY_MS = 15000;
let newest = null;

// While the keyboard focus is inside #live, the content stays; it is updated when the focus leaves.
function show() {
  if (newest === null || live.contains(document.activeElement)) return;
  const parsed = new DOMParser().parseFromString(newest, "text/html");
  live.replaceChildren(...parsed.body.childNodes);
  newest = null;
}
live.addEventListener("focusout", () => setTimeout(show));

function listen() {
  const source = new EventSource(live.dataset.events);
  source.onopen = () => { state.textContent = "live"; };
  source.onmessage = (message) => {
    newest = message.data;
    show();
  };
  source.onerror = () => {
    state.textContent = "not live; reconnecting";
    if (source.readyState === EventSource.CLOSED) setTimeout(reconnect, RETRY_MS);
  };
  // A page in the browser's back/forward cache must not keep a stream open.
  addEventListener("pagehide", () => source.close(), { once: true });
}

// The stream was refused: the session has ended, there are too many streams, or the console has stopped.
async function reconnect() {
  try {
    const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload();
    listen();
  } catch {
    setTimeout(reconnect, RETRY_MS);
  }
}
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
listen();
