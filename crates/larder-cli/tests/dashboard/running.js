// `larder up` and a browser, for one test each.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const { LARDER, PICTURES } = process.env;
assert(LARDER && PICTURES, "LARDER names the binary, PICTURES a folder: scripts/test sets both");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/// Longer than anything here takes on a loaded machine.
export const PATIENCE_MS = 30_000;

/// How pages are shown.
export const LOOKS = {
  light: { colorScheme: "light", viewport: { width: 1200, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1200, height: 900 } },
  phone: { colorScheme: "light", viewport: { width: 390, height: 844 } },
};

/// Waits until it is so.
export async function until(what, isSo) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert(Date.now() < end, `not yet: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/// The sample service and its control plane, in a folder of their own.
export class Up {
  /// With these users of the dashboard, by name: each with his role, and his name twice as the password.
  static async start(t, users = {}) {
    const folder = mkdtempSync(path.join(tmpdir(), "larder-"));
    const env = { PATH: process.env.PATH, SLOW_QUERY_MS: "20" };
    const larder = (line, input) => execFileSync(LARDER, line.split(" "), { cwd: folder, env, input, encoding: "utf8" });
    for (const [name, role] of Object.entries(users)) {
      larder(`user create ${name} --role ${role} --all-services`, `${name}${name}\n`);
      env.LARDER_CONTROL_KEY ??= JSON.parse(larder("key create --role admin --all-services --name service --json")).secret;
    }
    const child = spawn(LARDER, ["up", "--port", "0", "--control-port", "0"], { cwd: folder, env, stdio: ["ignore", "pipe", "ignore"] });
    t.after(async () => {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.kill("SIGKILL")) await ended;
      rmSync(folder, { recursive: true, force: true });
    });
    const origins = [];
    for await (const line of createInterface({ input: child.stdout })) {
      const [origin] = line.match(/http:\/\/127\.0\.0\.1:\d+$/) ?? [];
      if (origin) origins.push(origin);
      if (origins.length === 2) break;
    }
    child.stdout.resume();
    assert.equal(origins.length, 2, "it says where it listens");
    return new Up(folder, env.LARDER_CONTROL_KEY, ...origins);
  }

  constructor(folder, key, service, control) {
    Object.assign(this, { folder, key, service, control });
  }

  async isCached(endpoint) {
    return (await (await fetch(this.service + endpoint)).json()).cached;
  }

  /// Asks the control plane, and answers with what it says.
  async ask(method, route, body) {
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    const answer = await fetch(this.control + route, { method, headers, body: JSON.stringify(body) });
    assert(answer.ok, `${method} ${route}: ${answer.status} ${await answer.clone().text()}`);
    return answer.status === 204 ? null : answer.json();
  }
}

/// A page in a browser of its own, with what was done in it before.
export async function browse(t, up, look, more = {}) {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-quic", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
  });
  t.after(() => browser.close());
  const context = await browser.newContext({ ...LOOKS[look], baseURL: up.control, ...more });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on("pageerror", (error) => assert.fail(error));
  return page;
}

/// Says yes to what the page asks.
export async function sayYes(page) {
  await page.getByRole("dialog").getByRole("button", { name: "Do it" }).click();
}

/// Takes a picture of the page; and it has no serious fault of accessibility, and is no wider than the window.
export async function lookAt(page, name, look) {
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: path.join(PICTURES, `${name}-${look}.png`), fullPage: true });
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const shown = bad.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`) }));
  assert.deepEqual(shown, [], `${name}, ${look}`);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wider, 0, `${name}, ${look}: it is wider than the window`);
}
