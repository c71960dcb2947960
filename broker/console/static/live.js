// The overview renews itself: the server sends what is inside #live whenever it has looked again.
"use strict";

const live = document.getElementById("live");
const state = document.getElementById("live-state");
const AGAIN_MS = 15000;
let newest = null;

// Who reads with the keyboard inside keeps what they are at; it is renewed when they leave.
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
    state.textContent = "not live; trying again";
    if (source.readyState === EventSource.CLOSED) setTimeout(again, AGAIN_MS);
  };
  // A page that goes to sleep for the back button must not hold a stream.
  addEventListener("pagehide", () => source.close(), { once: true });
}

// The stream was refused: the session is over, there are too many, or the console is gone.
async function again() {
  try {
    const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload();
    listen();
  } catch {
    setTimeout(again, AGAIN_MS);
  }
}
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
listen();
