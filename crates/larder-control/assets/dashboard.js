// The dashboard's script: what is shown follows what is so, and nothing is changed before it was asked for twice.
"use strict";

const EVERY_MS = 2000;
const OPEN_AFTER_MS = 9000;
const AGAIN_MS = 30000;
const pulse = document.getElementById("pulse");
const outcome = document.getElementById("outcome");

/// Takes the parts that are marked as live from the page as it is now.
async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (answer.status === 401) location.assign("/ui/login?then=" + encodeURIComponent(location.pathname + location.search));
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of page.querySelectorAll("[data-live]")) {
    const shown = document.getElementById(part.id);
    if (!shown || shown.innerHTML === part.innerHTML || isInUse(shown)) continue;
    const open = [...shown.querySelectorAll("details")].map((one) => one.open);
    shown.replaceChildren(...part.childNodes);
    shown.querySelectorAll("details").forEach((one, index) => { one.open = open[index] ?? false; });
  }
  introduce();
}

/// Whether somebody is about to do something in a part of the page.
function isInUse(part) {
  if (part.contains(document.activeElement)) return true;
  return [...part.querySelectorAll("input, select")].some(isChanged);
}

function isChanged(field) {
  if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
  const options = [...field.options];
  const first = options.find((option) => option.defaultSelected) ?? options[0];
  return !first.selected;
}

let isLooking = false;
let mustLookAgain = false;

/// Shows what is so now; one look at a time.
async function look() {
  if (document.hidden) return;
  if (isLooking) { mustLookAgain = true; return; }
  isLooking = true;
  try {
    await refresh();
    pulse.classList.remove("lost");
    pulse.querySelector(".say").textContent = "live";
  } catch {
    pulse.classList.add("lost");
    pulse.querySelector(".say").textContent = "the control plane does not answer: what is shown is old";
  } finally {
    isLooking = false;
  }
  if (mustLookAgain) { mustLookAgain = false; look(); }
}

let events = null;
let opening = null;
let asking = null;

/// A page that is just opened asks again and again; one that stays open is told by the control plane when something changed. One
/// that nobody sees has no stream: a browser has few connections to one place.
function follow() {
  events?.close();
  events = null;
  clearTimeout(opening);
  askAgain(!document.hidden);
  if (!document.hidden) opening = setTimeout(openStream, OPEN_AFTER_MS);
}

function openStream() {
  events = new EventSource("/api/events");
  events.addEventListener("changed", () => { askAgain(false); look(); });
  events.addEventListener("error", () => {
    askAgain(true);
    if (events?.readyState === EventSource.CLOSED) opening = setTimeout(openStream, AGAIN_MS);
  });
}

function askAgain(must) {
  clearInterval(asking);
  asking = must ? setInterval(look, EVERY_MS) : null;
}

function say(text, failed) {
  outcome.textContent = text;
  outcome.classList.toggle("failed", failed);
  outcome.hidden = false;
}

/// What a form says, as JSON: what it keeps, and its fields in place of that; empty ones are left out.
function body(form) {
  const fields = JSON.parse(form.dataset.keeps || "{}");
  for (const field of form.querySelectorAll("[data-field]")) {
    const path = field.dataset.field.split(".");
    const name = path.pop();
    const place = path.reduce((within, part) => (within[part] ??= {}), fields);
    const text = field.value.trim();
    delete place[name];
    if (text !== "") place[name] = "number" in field.dataset ? Number(text) : text;
  }
  return fields;
}

/// Where a form's words go: who and why are in the query where the body is the policy itself.
function address(form) {
  const url = new URL(form.dataset.url, location.href);
  for (const field of form.querySelectorAll("[data-query]")) {
    if (field.value.trim() !== "") url.searchParams.set(field.dataset.query, field.value.trim());
  }
  return url;
}

async function send(form, url, fields) {
  const headers = {};
  const token = document.querySelector("meta[name=csrf]");
  if (token) headers["X-CSRF-Token"] = token.content;
  if (form.dataset.etag) headers["If-Match"] = form.dataset.etag;
  const options = { method: form.dataset.method, headers };
  if (options.method !== "DELETE") {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(fields);
  }
  return fetch(url, options);
}

/// What a change would do, where the control plane can say so.
async function wouldChange(form, fields) {
  if ("tries" in form.dataset) {
    const answer = await send(form, address(form), { ...fields, dry_run: true });
    const said = await answer.json().catch(() => ({}));
    return answer.ok ? { "it would": said.says } : { "it would be refused": said.detail ?? answer.status };
  }
  if (!("dry" in form.dataset)) return fields;
  const url = address(form);
  url.searchParams.set("dry_run", "true");
  const answer = await send(form, url, fields);
  if (!answer.ok) return fields;
  const { changes } = await answer.json();
  if (changes.length === 0) return { nothing: "it would change nothing" };
  const said = (value) => (value === null ? "none" : JSON.stringify(value));
  return Object.fromEntries(changes.map((one) => [one.endpoint, `${said(one.before)} → ${said(one.after)}`]));
}

function ask(what, fields) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-what").textContent = what + ".";
  const details = Object.entries(fields).map(([name, value]) => {
    const item = document.createElement("li");
    item.textContent = `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`;
    return item;
  });
  document.getElementById("ask-details").replaceChildren(...details);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.url) return;
  event.preventDefault();
  const fields = body(form);
  const name = form.querySelector("[data-me]")?.value.trim();
  if (name) localStorage.setItem("name", name);
  if (!(await ask(form.dataset.what, await wouldChange(form, fields)))) return;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await send(form, address(form), fields);
    if (answer.ok) {
      const done = "says" in form.dataset ? await answer.json() : null;
      say(done ? `${done.state}: ${done.says}.` : form.dataset.done, done?.state === "pending");
      form.reset();
      document.activeElement.blur();
    } else {
      const problem = await answer.json().catch(() => ({}));
      const why = problem.detail ?? answer.status;
      // What failed says itself whether something may be changed.
      say(answer.status < 500 ? `It was refused: ${why}. Nothing was changed.` : `It failed: ${why}.`, true);
    }
    await refresh();
  } catch {
    say("The control plane did not answer: look whether it was changed.", true);
  } finally {
    button.disabled = false;
  }
});

/// Who said a name once need not again.
function introduce() {
  for (const field of document.querySelectorAll("[data-me]")) {
    if (field.value === "") field.value = field.defaultValue = localStorage.getItem("name") ?? "";
  }
}

if (document.querySelector("[data-live]")) {
  introduce();
  document.addEventListener("visibilitychange", follow);
  follow();
} else {
  pulse.hidden = true;
}
