// What an operator does on the dashboard, in a real Chromium, acts on the sample service.
import assert from "node:assert/strict";
import { test } from "node:test";

import { LOOKS, PATIENCE_MS, Up, browse, lookAt, sayYes, until } from "./running.js";

const CONFIG = "/api/config/product-service/products";
const POLICY = "/api/policies/product-service/products";

/// With an endpoint that was measured.
async function start(t, users) {
  const up = await Up.start(t, users);
  await until("it is cached", () => up.isCached("/products"));
  await until("it was measured", async () => JSON.stringify(await up.ask("GET", "/api/endpoints")).includes("/products"));
  return up;
}

/// The form with this heading.
function form(page, heading) {
  return page.locator("form").filter({ has: page.getByRole("heading", { name: heading, exact: true }) });
}

async function says(page, text) {
  await page.getByText(text).first().waitFor();
}

test("what is done on the dashboard acts on the service", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  await page.goto("/");
  await page.getByRole("link", { name: "product-service", exact: true }).first().click();
  await page.getByRole("link", { name: "/products", exact: true }).first().click();

  // Caching is turned off: the next answer comes uncached.
  const policy = form(page, "Policy");
  await policy.getByLabel("Mode").selectOption("off");
  await policy.getByLabel("Why").fill("prices are being changed");
  await policy.getByLabel("Your name").fill("Ada");
  await policy.getByRole("button").click();
  await says(page, "Set the policy of /products of product-service");
  await sayYes(page);
  await says(page, "The policy is set");
  await until("it comes uncached", async () => !(await up.isCached("/products")));
  const [revision] = (await up.ask("GET", "/api/revisions/product-service")).revisions;
  assert.equal(revision.author, "Ada");
  assert.equal(revision.reason, "prices are being changed");

  // A TTL is set, once the page shows what is so.
  await page.locator("#force .state").getByText("off", { exact: true }).waitFor();
  await policy.getByLabel("Mode").selectOption("on");
  await policy.getByLabel("TTL in seconds").fill("60");
  await policy.getByRole("button").click();
  await sayYes(page);
  await until("it is in force", async () => (await up.ask("GET", CONFIG)).ttl_seconds === 60);
  await until("it is cached again", () => up.isCached("/products"));
  await page.locator("#force").getByText("60 s").first().waitFor();

  // An override ends by itself, and the page follows without being loaded anew.
  const override = form(page, "Override for a while");
  // None of those on offer is so short. What is chosen once stays: until then the page may show the form anew.
  const length = override.locator("[data-field=duration_seconds]");
  await until("it is chosen", async () => {
    await length.evaluate((select) => {
      select.options[0].value = "10";
      select.selectedIndex = 0;
    });
    return (await length.inputValue()) === "10";
  });
  await override.getByLabel("Why").fill("an incident");
  await override.getByRole("button").click();
  await sayYes(page);
  await says(page, "Ends by itself in");
  await until("it comes uncached", async () => !(await up.isCached("/products")));
  await override.waitFor();
  assert.equal((await up.ask("GET", CONFIG)).source, "policy");
  await until("it is cached again", () => up.isCached("/products"));

  // What was before is brought back.
  await page.goto("/ui/history/product-service");
  await page.getByRole("link", { name: String(revision.number), exact: true }).click();
  await page.getByRole("button", { name: "Roll back" }).click();
  await sayYes(page);
  await says(page, "They are back");
  await until("it is off again", async () => !(await up.ask("GET", CONFIG)).cache_enabled);
  await until("it comes uncached", async () => !(await up.isCached("/products")));
});

test("what is invalidated comes anew, and the page says before and after what it does", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  const known = async () => (await up.ask("GET", "/api/instances")).instances.length === 1;
  await until("the service says where it stands", known);
  // A machine that stands still for a moment is no reason that it is pending.
  await page.route("**/api/invalidate", (route) => {
    const asked = route.request().postDataJSON();
    return route.continue({ postData: JSON.stringify({ ...asked, wait_seconds: 20 }) });
  });
  for (const [place, heading] of [
    ["/ui/services/product-service/products", "Invalidate"],
    ["/ui/services/product-service", "Invalidate all of it"],
  ]) {
    await until("it is cached", () => up.isCached("/products"));
    await page.goto(place);
    const invalidate = form(page, heading);
    await invalidate.getByLabel("Why").fill("wrong prices");
    await invalidate.getByRole("button").click();
    await says(page, /it would: 1 entry in .* would be removed; 1 instance would be told/);
    assert(await up.isCached("/products"), "nothing was done yet");
    await sayYes(page);
    await says(page, /^done: 1 entry removed in .*; the one instance that is known has done it/);
    assert(!(await up.isCached("/products")), "it comes anew");
  }
  await page.locator("#invalidated").getByText("wrong prices").first().waitFor();

  // One entry, found by its key.
  await until("it is cached", () => up.isCached("/products"));
  await page.getByRole("link", { name: "Keys", exact: true }).click();
  await page.getByLabel("Keys that begin with").fill("/prod");
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByRole("link", { name: "cache:product-service:/products", exact: true }).click();
  await says(page, "the entry is fresh: it would be served");
  await says(page, "Laptop");
  await form(page, "Delete").getByRole("button").click();
  await says(page, "Delete cache:product-service:/products.");
  await sayYes(page);
  await says(page, /^done: /);
  await says(page, "There is none under this key");
  assert(!(await up.isCached("/products")), "it comes anew");
});

test("pages follow what is so, without being asked again and again", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  const looks = [];
  page.on("request", (request) => { if (request.url().endsWith("/ui/overrides")) looks.push(request.url()); });
  const stream = page.waitForRequest("**/api/events");
  await page.goto("/ui/overrides");
  await stream;
  await says(page, "live");
  const began = looks.length;
  const over = { service_name: "product-service", endpoint: "/products", policy: { mode: "off" }, reason: "an incident", duration_seconds: 600 };
  await up.ask("POST", "/api/overrides", over);
  await says(page, "an incident");
  assert(looks.length - began < 10, `it looked ${looks.length - began} times`);
  // Where there is no stream it asks.
  await page.route("**/api/events", (route) => route.abort());
  const failed = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/api/events"));
  await page.reload();
  await failed;
  await up.ask("POST", "/api/overrides", { ...over, endpoint: "/products/{id}", reason: "a second one" });
  await says(page, "a second one");
});

test("an entry is found, looked at and deleted", async (t) => {
  const up = await start(t);
  await until("it is cached", () => up.isCached("/products/2"));
  const page = await browse(t, up, "light");
  await page.goto("/ui/services/product-service");
  await page.getByRole("link", { name: "Keys", exact: true }).first().click();
  await page.getByLabel("Keys that begin with").fill("/products/");
  await page.getByRole("button", { name: "Show" }).click();
  const found = page.getByRole("link", { name: "cache:product-service:/products", exact: false });
  await page.getByRole("link", { name: "/products/2" }).waitFor();
  assert.equal(await found.count(), 1, "the others begin otherwise");
  await lookAt(page, "keys", "light");
  await page.getByRole("link", { name: "/products/2" }).click();
  await page.getByText('"name":"Mouse"').first().waitFor();
  await lookAt(page, "entry", "light");
  assert(await up.isCached("/products/2"));
  await page.getByRole("button", { name: "Delete" }).click();
  await sayYes(page);
  await says(page, "There is none under this key");
  assert(!(await up.isCached("/products/2")), "the next answer is made anew");
});

test("who logs in may do what his role may", async (t) => {
  const up = await start(t, { operator: "operator", visitor: "viewer" });
  const page = await browse(t, up, "light");
  const logIn = async (name, password) => {
    await page.getByLabel("Name").fill(name);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Log in" }).click();
  };
  await page.goto("/ui/services/product-service/products");
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await lookAt(page, "login", "light");
  await logIn("operator", "a wrong password");
  await says(page, "The name or the password is wrong");
  await logIn("operator", "operatoroperator");
  // He is where he wanted to go.
  await page.getByRole("heading", { level: 1, name: "/products" }).waitFor();
  const policy = form(page, "Policy");
  await policy.getByLabel("Mode").selectOption("off");
  await policy.getByRole("button").click();
  await sayYes(page);
  await until("it is off", async () => !(await up.ask("GET", CONFIG)).cache_enabled);
  const [revision] = (await up.ask("GET", "/api/revisions/product-service")).revisions;
  assert.match(revision.author, /operator/);

  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Password").waitFor();
  await page.goto("/");
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await logIn("visitor", "visitorvisitor");
  await page.goto("/ui/services/product-service/products");
  await page.getByRole("heading", { level: 1, name: "/products" }).waitFor();
  assert.equal(await form(page, "Policy").count(), 0, "who only looks is offered no change");
});

test("a decision's explanation can be read", async (t) => {
  const up = await start(t);
  await up.ask("PUT", POLICY, { mode: "auto", max_ttl_seconds: 120 });
  const traffic = setInterval(() => up.isCached("/products").catch(() => {}), 100);
  t.after(() => clearInterval(traffic));
  const page = await browse(t, up, "light");
  await page.goto("/ui/services/product-service/products");
  // The engine looks every ten seconds, and wants evidence.
  await page.getByRole("heading", { name: "What was decided" }).waitFor({ timeout: 3 * PATIENCE_MS });
  await page.getByRole("heading", { name: "What would make it another" }).waitFor();
  assert((await page.locator("#flips li").count()) > 0, "it says what would flip it");
  await lookAt(page, "decision", "light");
});

test("what is refused is said, and nothing was changed", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  await page.goto("/ui/services/product-service/products");
  // Somebody else was faster.
  const policy = form(page, "Policy");
  await policy.getByLabel("Mode").selectOption("off");
  await up.ask("PUT", POLICY, { mode: "on", ttl_seconds: 7 });
  await policy.getByRole("button").click();
  await sayYes(page);
  await says(page, "It was refused");
  assert.equal((await up.ask("GET", CONFIG)).ttl_seconds, 7);
});

test("it is used by keyboard alone", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  await page.goto("/ui/services/product-service/products");
  const mode = form(page, "Policy").getByLabel("Mode");
  await until("the form is reached", async () => {
    await page.keyboard.press("Tab");
    return mode.evaluate((one) => one === document.activeElement);
  });
  // A browser forgets the letters typed so far where the next one is late.
  await until("it is chosen", async () => {
    await page.keyboard.type("off");
    return (await mode.inputValue()) === "off";
  });
  const button = form(page, "Policy").getByRole("button");
  await until("its button is reached", async () => {
    await page.keyboard.press("Tab");
    return button.evaluate((one) => one === document.activeElement);
  });
  await page.keyboard.press("Enter");
  const yes = page.getByRole("button", { name: "Do it" });
  await yes.waitFor();
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await until("it is off", async () => !(await up.ask("GET", CONFIG)).cache_enabled);
});

test("the day and the quarter are reached by keyboard", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  await page.goto("/ui/services/product-service/products");
  const follow = async (name) => {
    const link = page.getByRole("link", { name, exact: true });
    await until(`${name} is reached`, async () => {
      await page.keyboard.press("Tab");
      return link.evaluate((one) => one === document.activeElement);
    });
    await page.keyboard.press("Enter");
  };
  await follow("All of product-service over time");
  await page.getByRole("heading", { level: 1, name: "product-service over time" }).waitFor();
  await says(page, "Nothing is kept of the last day");
  await follow("Last 90 days");
  await says(page, "Nothing is kept of the last 90 days");
  const here = page.getByRole("navigation", { name: "How far back" }).locator("[aria-current]");
  assert.equal(await here.textContent(), "Last 90 days");
});

for (const look of Object.keys(LOOKS)) {
  test(`every page is fit to be looked at: ${look}`, async (t) => {
    const up = await start(t);
    await up.ask("PUT", POLICY, { mode: "auto", max_ttl_seconds: 120 });
    const page = await browse(t, up, look);
    for (const [name, place] of [
      ["fleet", "/"],
      ["service", "/ui/services/product-service"],
      ["endpoint", "/ui/services/product-service/products"],
      ["keys", "/ui/keys/product-service"],
      ["keys-none", "/ui/keys/product-service?prefix=/none"],
      ["entry", "/ui/keys/product-service/entry?key=cache%3Aproduct-service%3A%2Fproducts"],
      ["instances", "/ui/instances"],
      ["history", "/ui/history/product-service?of=1"],
      ["over-time-none", "/ui/over-time/product-service"],
      ["overrides", "/ui/overrides"],
      ["audit", "/ui/audit"],
      ["missing", "/ui/services/none-of-this-name"],
    ]) {
      await page.goto(place);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await lookAt(page, name, look);
    }
  });
}
