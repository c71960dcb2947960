// The console works without this script, except that pages do not refresh themselves.
"use strict";

// <section id="x" data-refresh="2">: fetched again every two seconds and replaced.
function refresh(part) {
  const seconds = Number(part.dataset.refresh);
  setTimeout(async () => {
    if (document.hidden || part.contains(document.activeElement)) return refresh(part);
    try {
      const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") return location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      // The buttons beside the section depend on its state.
      if (!fresh || fresh.dataset.state !== part.dataset.state) return location.reload();
      part.replaceWith(fresh);
      if (fresh.dataset.refresh) refresh(fresh);
    } catch {
      refresh(part);
    }
  }, seconds * 1000);
}
document.querySelectorAll("[data-refresh][id]").forEach(refresh);

// A second click does not send a form twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "1";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));
