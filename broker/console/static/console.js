// All that the console needs of a script. Everything works without it, but for what renews itself.
"use strict";

// <section id="x" data-refresh="2">: fetched again every two seconds while it is there, and put in place of itself.
function renew(part) {
  const seconds = Number(part.dataset.refresh);
  setTimeout(async () => {
    if (document.hidden || part.contains(document.activeElement)) return renew(part);
    try {
      const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") return location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      // What is offered beside it depends on its state.
      if (!fresh || fresh.dataset.state !== part.dataset.state) return location.reload();
      part.replaceWith(fresh);
      if (fresh.dataset.refresh) renew(fresh);
    } catch {
      renew(part);
    }
  }, seconds * 1000);
}
document.querySelectorAll("[data-refresh][id]").forEach(renew);

// A form that was sent is not sent twice by a second click.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "1";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));
