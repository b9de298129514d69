// Log-in, in a real Chromium: by keyboard, with scripts and without.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

import { LOOKS, Up, browse, lookAt, until } from "./running.js";

const PASSWORD = "correct horse battery";

/// With a user who may look; then the control plane asks who is there.
async function start(t) {
  const up = await Up.start(t);
  const create = ["user", "create", "alice", "--role", "viewer", "--all-services"];
  execFileSync(process.env.LARDER, create, { cwd: up.folder, env: { PATH: process.env.PATH }, input: `${PASSWORD}\n`, stdio: ["pipe", "pipe", "inherit"] });
  await until("it asks who is there", async () => (await fetch(`${up.control}/api/services`)).status === 401);
  return up;
}

async function logIn(page, password) {
  await page.getByLabel("Name").fill("alice");
  await page.getByLabel("Password").fill(password);
  await page.keyboard.press("Enter");
}

for (const javaScriptEnabled of [true, false]) {
  test(`who logs in sees the pages until he logs out, ${javaScriptEnabled ? "with" : "without"} scripts`, async (t) => {
    const up = await start(t);
    const page = await browse(t, up, "light", { javaScriptEnabled });
    await page.goto("/ui/services/product-service/products");
    assert.match(page.url(), /\/ui\/login\?then=/);
    await logIn(page, "wrong horse battery");
    await page.getByRole("alert").waitFor();
    await logIn(page, PASSWORD);
    await page.getByText("alice (viewer)").waitFor();
    assert.match(page.url(), /\/ui\/services\/product-service\/products$/);
    // Who may only look is offered nothing else.
    assert.equal(await page.getByRole("button").count(), 1, "Log out alone");
    await page.goto("/");
    await page.getByText("alice (viewer)").waitFor();
    if (javaScriptEnabled) await page.getByText("live", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Log out" }).focus();
    await page.keyboard.press("Enter");
    await page.getByLabel("Password").waitFor();
    await page.goto("/");
    assert.match(page.url(), /\/ui\/login/);
  });
}

test("a page whose session is over leads to the log-in", async (t) => {
  const up = await start(t);
  const page = await browse(t, up, "light");
  await page.goto("/");
  await logIn(page, PASSWORD);
  await page.getByText("alice (viewer)").waitFor();
  await page.context().clearCookies();
  await page.getByLabel("Password").waitFor();
});

for (const look of Object.keys(LOOKS)) {
  test(`the log-in is accessible, ${look}`, async (t) => {
    const up = await start(t);
    const page = await browse(t, up, look);
    await page.goto("/ui/login");
    await lookAt(page, "log-in", look);
    await logIn(page, "wrong horse battery");
    await page.getByRole("alert").waitFor();
    await lookAt(page, "log-in-failed", look);
    await logIn(page, PASSWORD);
    await page.getByText("alice (viewer)").waitFor();
    await lookAt(page, "logged-in", look);
  });
}
