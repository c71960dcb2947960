"use strict";
// Improvements for browsers with JavaScript; every form and link works without it.

// Counted as the broker counts: code points after NFC, a line break as one character.
const counted = (text) => [...text.replace(/\r\n?/g, "\n").normalize("NFC")].length;

function count(form) {
  const field = form.querySelector("textarea");
  const shown = form.querySelector("[data-count]");
  const wrong = form.querySelector("[data-wrong]");
  const send = form.querySelector("[data-send]");
  const most = Number(shown.dataset.most);
  const length = counted(field.value);
  const over = length - most;
  shown.textContent = `${length} af ${most} tegn.`;
  wrong.textContent = over > 0 ? `Teksten er ${over} tegn for lang. Der er plads til ${most} tegn.` : "";
  field.setAttribute("aria-invalid", String(over > 0));
  send.disabled = over > 0 || field.value.trim() === "";
}

function watchCount(root) {
  for (const form of root.querySelectorAll("form[data-counted]")) {
    form.addEventListener("input", () => count(form));
    const said = form.querySelector("[data-wrong]").textContent;
    count(form);
    if (said) form.querySelector("[data-wrong]").textContent = said; // the server's message stays until the citizen types
  }
}

// The dialog: its form is sent without leaving the page, and the response replaces it.
function watchDialog(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target.closest("[data-closes]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method === "dialog") return;
    event.preventDefault();
    const send = form.querySelector("[data-send]");
    send.disabled = true;
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      dialog.querySelector("[data-report]").replaceWith(page.querySelector("[data-report]"));
      watchCount(dialog);
      dialog.querySelector("[data-receipt] h2, textarea").focus();
    } catch {
      form.querySelector("[data-wrong]").textContent = "Det lykkedes ikke at sende. Prøv igen.";
      send.disabled = false;
    }
  });
}

// A part of the page that changes by itself is fetched again, unless it has the focus.
const LIVE_MS = 2000;
async function refresh() {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  try {
    if (!document.hidden && !part.contains(document.activeElement)) {
      const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
      const now = page.getElementById(part.id);
      if (now && now.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) {
        part.replaceWith(now);
        document.title = page.title;
      }
    }
  } catch {
    // The server does not answer; try again later.
  }
  setTimeout(refresh, LIVE_MS);
}

watchCount(document);
for (const dialog of document.querySelectorAll("dialog")) watchDialog(dialog);
for (const opener of document.querySelectorAll("[data-opens]")) {
  opener.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(opener.dataset.opens).showModal();
  });
}
setTimeout(refresh, LIVE_MS);
